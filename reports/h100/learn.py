"""Learn: the fast path beside the plain one on real weights and real OASST trees, on one GPU.

``python reports/h100/learn.py --model FOLDER --data TREES --out FOLDER [--gguf FILE]``. With
``--gguf`` the folder is first made from that file. Writes learn.json; holds no data text.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from harness.corpus.build import build_corpus
from harness.corpus.render import Renderer
from harness.corpus.sequences import make_rows
from harness.device import detect_device
from harness.events import Silence
from harness.model.adapter import attach_adapter
from harness.model.load import load_base, load_tokenizer
from harness.plan import Plan, make_plan
from harness.registry import load_model, load_suite, load_variant
from harness.train.batch import StreamBatch, make_stream_batch
from harness.train.decoder import Decoder
from harness.train.schedule import schedule
from harness.train.train import TrainJob, train


def plan_of(data: str, speed: str, seed: int, *, packing: bool = False, steps: int = 100) -> Plan:
    """QLoRA of SmolLM2 under suite quick, at batch 8."""
    suite = load_suite(
        "quick",
        {
            "corpus": {"source": data, "policy": "all_paths", "held_out_fraction": 0.2},
            "budget": {"steps": steps, "batch_size": 8},
            "training": {
                "sequence_length": 1024,
                "micro_batch_size": 8,
                "speed": speed,
                "packing": packing,
            },
        },
    )
    variant = load_variant("qlora_nf4_dq", suite)
    return make_plan(variant, suite, load_model(suite.model), seed, detect_device())


def token_losses(model: Any, rows: Any, device: Any) -> list[torch.Tensor]:
    """Per-token losses of every row by transformers' own forward, one row at a time."""
    found = []
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor(row.input_ids, dtype=torch.int64, device=device)[None]
            labels = torch.tensor(row.labels, dtype=torch.int64, device=device)
            logits = model(input_ids=ids).logits[0, :-1].float()
            losses = torch.nn.functional.cross_entropy(logits, labels[1:], reduction="none")
            found.append(losses[labels[1:] != -100])
    return found


def to(batch: StreamBatch, device: Any) -> StreamBatch:
    """The batch on ``device``."""
    moved = {name: tensor.to(device) for name, tensor in batch.tensors.items()}
    return StreamBatch(**moved, longest=batch.longest)


def main() -> None:
    """Train both paths, compare them, write learn.json."""
    parser = argparse.ArgumentParser()
    for name in ("model", "data", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--gguf")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    folder = Path(arguments.model)
    if arguments.gguf and not folder.exists():
        from harness.model.fetch import _convert_gguf

        folder.mkdir(parents=True)
        _convert_gguf(Path(arguments.gguf), folder)
    first = plan_of(arguments.data, "plain", 0)
    device = first.device.kind
    renderer = Renderer(load_tokenizer(folder))
    corpus = build_corpus(first.corpus)
    rows = make_rows(list(renderer.encode_all(corpus.train)), first.training)
    packed_plan = plan_of(arguments.data, "fast", 0, packing=True)
    packed = make_rows(list(renderer.encode_all(corpus.train)), packed_plan.training)
    held_out = make_rows(list(renderer.encode_all(corpus.held_out)), first.training)
    out: dict[str, Any] = {
        "train_rows": len(rows.rows),
        "held_out_rows": len(held_out.rows),
        "runs": [],
    }
    for speed in ("plain", "fast"):
        for seed in range(arguments.seeds):
            plan = plan_of(arguments.data, speed, seed, steps=arguments.steps)
            model = attach_adapter(load_base(plan, folder), plan)
            order = schedule(len(rows.rows), plan.budget, seed, [1] * len(rows.rows))
            started = time.perf_counter()
            result = train(TrainJob(model, rows.rows, order, plan, renderer.pad_id), Silence())
            seconds = time.perf_counter() - started
            losses = torch.cat(token_losses(model.eval(), held_out.rows, device))
            out["runs"].append(
                {
                    "speed": speed,
                    "trainer": result.trainer,
                    "seed": seed,
                    "seconds": seconds,
                    "tokens_per_second": result.throughput.median,
                    "losses": [point.loss for point in result.losses],
                    "perplexity": math.exp(float(losses.double().mean())),
                }
            )
            print(
                speed,
                seed,
                result.trainer,
                round(seconds, 1),
                result.throughput.median,
                out["runs"][-1]["perplexity"],
                flush=True,
            )
    by = {(run["speed"], run["seed"]): run for run in out["runs"]}
    seeds = range(arguments.seeds)
    out["largest_difference_of_first_20_losses"] = max(
        abs(a - b)
        for seed in seeds
        for a, b in zip(
            by["plain", seed]["losses"][:20], by["fast", seed]["losses"][:20], strict=True
        )
    )
    out["perplexity_differences"] = [
        by["fast", seed]["perplexity"] - by["plain", seed]["perplexity"] for seed in seeds
    ]
    out["seed_deviation_of_perplexity"] = (
        statistics.stdev(by["plain", seed]["perplexity"] for seed in seeds)
        if arguments.seeds > 1
        else None
    )
    # packed against unpacked, per token, by the fast path and by transformers' forward
    decoder = Decoder(model, torch.bfloat16 if device == "cuda" else torch.float32)
    decoder.refresh()
    together, apart, reference = [], [], []
    for row in packed.rows[:40]:
        together.append(decoder.losses(to(make_stream_batch([row]), device)))
        singles, start = [], 0
        for size in row.lengths:
            part = slice(start, start + size)
            singles.append(
                type(row)(row.input_ids[part], row.labels[part], row.position_ids[part], (size,))
            )
            start += size
        apart += [decoder.losses(to(make_stream_batch([one]), device)) for one in singles]
        reference += token_losses(model, singles, device)
    one, two, three = (torch.cat(parts).float() for parts in (together, apart, reference))
    out["packed_tokens"] = len(one)
    for name, left, right in (
        ("packed_fast_unpacked_fast", one, two),
        ("packed_fast_unpacked_transformers", one, three),
    ):
        gap = (left - right).abs()
        out[name] = {
            "mean": float(gap.mean()),
            "max": float(gap.max()),
            "p99": float(gap.quantile(0.99)) if len(gap) < 10_000_000 else None,
            "difference_of_means": float((left.double().mean() - right.double().mean()).abs()),
        }
    Path(arguments.out, "learn.json").write_text(json.dumps(out, indent=1))
    print(json.dumps({key: value for key, value in out.items() if key != "runs"}, indent=1))


if __name__ == "__main__":
    main()
