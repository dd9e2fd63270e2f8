"""Learn: the fast path beside the plain one on real weights and real OASST trees, on one GPU.

``python reports/h100/learn.py --model FOLDER --data TREES --out FOLDER [--gguf FILE]``. With
``--gguf`` the folder is first made from that file. Every training is a process of its own, a few
at a time: nothing here is timed. Writes learn.json; holds no data text.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from harness.corpus.corpus import build_corpus
from harness.corpus.render import Renderer
from harness.corpus.sequences import TrainingRows, make_training_rows
from harness.records.events import Silence
from harness.spec.device import detect_device
from harness.spec.plan import Plan
from harness.spec.planning import make_plan
from harness.spec.registry import load_model, load_suite, load_variant
from harness.train.collate import StreamBatch, make_stream_batch
from harness.train.job import TrainJob
from harness.train.path import train
from harness.train.schedule import schedule
from harness.train.stream.decoder import Decoder
from harness.weights.adapter import attach_adapter
from harness.weights.load import load_base, load_tokenizer

AT_ONCE = 4  # trainings; nine took more than 80 GB
FIRST = 20  # steps whose losses are compared one by one


@dataclass(frozen=True)
class Case:
    """One training: which path, in which arithmetic, how far."""

    speed: str
    seed: int = 0
    whole: bool = True  # all steps, then the held-out perplexity; else the first steps
    compute: str | None = None  # None: the default of the device
    round_once: bool = False


def cases(seeds: int) -> dict[str, Case]:
    """Both paths at every seed, and what tells rounding from error at seed 0."""
    found = {f"{speed}-{seed}": Case(speed, seed) for speed in ("plain", "fast")
             for seed in range(seeds)}  # fmt: skip
    found["plain-0-again"] = Case("plain", whole=False)
    found["plain-0-rounds-once"] = Case("plain", whole=False, round_once=True)
    found["plain-0-float32"] = Case("plain", whole=False, compute="float32")
    return found


def plan_of(data: str, case: Case, steps: int, *, packing: bool = False) -> Plan:
    """QLoRA of SmolLM2 under suite quick, at batch 8."""
    suite = load_suite(
        "quick",
        {
            "corpus": {"source": data, "policy": "all_paths", "held_out_fraction": 0.2},
            "budget": {"steps": steps, "batch_size": 8},
            "precision": {"compute": case.compute} if case.compute else {},
            "training": {
                "sequence_length": 1024,
                "micro_batch_size": 8,
                "speed": case.speed,
                "packing": packing,
            },
        },
    )
    variant = load_variant("qlora_nf4_dq", suite)
    return make_plan(variant, suite, load_model(suite.model), case.seed, detect_device())


def round_once(model: Any) -> None:
    """Let each adapted layer add base output and adapter in float32 and round their sum.

    As PEFT writes it, base output, adapter output and sum are each rounded to bfloat16, so that an
    adapter's contribution below half a unit of the base output's last place is lost.
    """
    from bitsandbytes.functional import dequantize_4bit
    from peft.tuners.lora.bnb import Linear4bit

    def patched(layer: Any) -> Any:
        base = layer.get_base_layer()
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        scale = layer.scaling["default"]

        def forward(x: torch.Tensor) -> torch.Tensor:
            weight = dequantize_4bit(base.weight.data, base.weight.quant_state).float()
            wide = x.float()
            out = wide @ weight.t() + scale * (wide @ a.float().t()) @ b.float().t()
            if base.bias is not None:
                out = out + base.bias.float()
            return out.to(x.dtype)

        return forward

    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.forward = patched(layer)


@dataclass(frozen=True)
class Ground:
    """What every training here stands on."""

    folder: Path
    data: str
    steps: int
    renderer: Renderer
    train: TrainingRows
    held_out: TrainingRows

    @classmethod
    def open(cls, folder: Path, data: str, steps: int) -> Ground:
        """Read the trees and tokenise them."""
        plan = plan_of(data, Case("plain"), steps)
        renderer = Renderer(load_tokenizer(folder))
        corpus = build_corpus(plan.corpus)
        rows = [
            make_training_rows(list(renderer.encode_all(part)), plan.training)
            for part in (corpus.train, corpus.held_out)
        ]
        return cls(folder, data, steps, renderer, *rows)

    def packed(self) -> TrainingRows:
        """The training conversations in packed rows."""
        plan = plan_of(self.data, Case("fast"), self.steps, packing=True)
        train = build_corpus(plan.corpus).train
        return make_training_rows(list(self.renderer.encode_all(train)), plan.training)

    def run(self, case: Case) -> tuple[Any, dict[str, Any]]:
        """The trained model, and what came out."""
        plan = plan_of(self.data, case, self.steps)
        model = attach_adapter(load_base(plan, self.folder), plan)
        if case.round_once:
            round_once(model)
        rows = self.train.rows
        order = schedule(len(rows), plan.budget, case.seed, [1] * len(rows))
        order = order if case.whole else order[: FIRST * plan.budget.batch_size]
        result = train(TrainJob(model, rows, order, plan, self.renderer.pad_id), Silence())
        found = {"trainer": result.trainer, "losses": [point.loss for point in result.losses]}
        if case.whole:
            device = plan.device.kind
            losses = torch.cat(token_losses(model.eval(), self.held_out.rows, device))
            found["perplexity"] = math.exp(float(losses.double().mean()))
        return model, found


def token_losses(model: Any, rows: Any, device: str) -> list[torch.Tensor]:
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


def packing(ground: Ground, model: Any, compute: torch.dtype) -> dict[str, Any]:
    """Per-token losses of packed rows against the same conversations alone."""
    device = model.device.type
    decoder = Decoder(model, compute)
    decoder.refresh()
    together, apart, reference = [], [], []
    for row in ground.packed().rows[:40]:
        together.append(decoder.losses(to(make_stream_batch([row]), device)))
        singles, start = [], 0
        for size in row.lengths:
            part = slice(start, start + size)
            ids, labels, places = row.input_ids[part], row.labels[part], row.position_ids[part]
            singles.append(replace(row, input_ids=ids, labels=labels, position_ids=places,
                                   lengths=(size,)))  # fmt: skip
            start += size
        apart += [decoder.losses(to(make_stream_batch([one]), device)) for one in singles]
        reference += token_losses(model, singles, device)
    one, two, three = (torch.cat(parts).float() for parts in (together, apart, reference))
    return {
        "tokens": len(one),
        "packed_fast_unpacked_fast": gap(one, two),
        "packed_fast_unpacked_transformers": gap(one, three),
    }


def to(batch: StreamBatch, device: str) -> StreamBatch:
    """The batch on ``device``."""
    moved = {name: tensor.to(device) for name, tensor in batch.tensors.items()}
    return StreamBatch(**moved, longest=batch.longest)


def gap(left: torch.Tensor, right: torch.Tensor) -> dict[str, float]:
    """How far two sets of per-token losses are apart."""
    apart = (left - right).abs()
    return {
        "mean": float(apart.mean()),
        "max": float(apart.max()),
        "p99": float(apart.quantile(0.99)),
        "difference_of_means": float((left.double().mean() - right.double().mean()).abs()),
    }


def summary(runs: dict[str, Any], seeds: int) -> dict[str, Any]:
    """Fast against plain, and plain against itself."""

    def largest(left: str, right: str) -> float:
        pairs = zip(runs[left]["losses"][:FIRST], runs[right]["losses"][:FIRST], strict=True)
        return max(abs(a - b) for a, b in pairs)

    plain = [runs[f"plain-{seed}"]["perplexity"] for seed in range(seeds)]
    fast = [runs[f"fast-{seed}"]["perplexity"] for seed in range(seeds)]
    return {
        "perplexity_plain": plain,
        "perplexity_fast": fast,
        "perplexity_differences": [b - a for a, b in zip(plain, fast, strict=True)],
        "seed_deviation_of_perplexity": statistics.stdev(plain) if seeds > 1 else None,
        "largest_difference_of_first_losses": {
            **{f"fast - plain, seed {s}": largest(f"fast-{s}", f"plain-{s}") for s in range(seeds)},
            "plain again - plain": largest("plain-0-again", "plain-0"),
            "fast - plain that rounds once": largest("fast-0", "plain-0-rounds-once"),
            "fast - plain in float32": largest("fast-0", "plain-0-float32"),
            "plain - plain in float32": largest("plain-0", "plain-0-float32"),
        },
    }


def main() -> None:
    """Train every case, compare them, write learn.json."""
    parser = argparse.ArgumentParser()
    for name in ("model", "data", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--gguf")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--case", help="one training only; others are started by the script itself")
    chosen = parser.parse_args()
    folder, out = Path(chosen.model), Path(chosen.out)
    if chosen.gguf and not folder.exists():
        from harness.weights.convert import convert_gguf

        folder.mkdir(parents=True)
        convert_gguf(Path(chosen.gguf), folder)
    known = cases(chosen.seeds)
    if chosen.case:
        ground = Ground.open(folder, chosen.data, chosen.steps)
        model, found = ground.run(known[chosen.case])
        if chosen.case == "fast-0":
            found["packing"] = packing(ground, model, model.dtype)
        (out / f"{chosen.case}.json").write_text(json.dumps(found))
        return
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, *sys.argv[1:], "--case"]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ended = dict(zip(known, pool.map(lambda name: subprocess.call([*command, name]), known),
                         strict=True))  # fmt: skip
    if any(ended.values()):
        raise SystemExit(f"did not end well: {ended}")
    runs = {name: json.loads((out / f"{name}.json").read_text()) for name in known}
    found = {"packing": runs["fast-0"].pop("packing"), **summary(runs, chosen.seeds), "runs": runs}
    for name in known:
        (out / f"{name}.json").unlink()
    (out / "learn.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({key: value for key, value in found.items() if key != "runs"}, indent=1))


if __name__ == "__main__":
    main()
