"""Methods: what only a GPU can show of methods and bases, on models of SmolLM2's shape.

``python reports/h100/methods.py [--device cpu] [--seconds 110]``: weights are random, so no data
and no network are needed. Each line is one pair of method and base, trained by the path that a run
would choose; it says first and last loss, tokens a second, the peak and what was predicted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

# The GPU-only ones first, then a method of each kind, then the bases.
PAIRS = [
    ("lora_loftq", "none"),
    ("full_adamw_8bit", "none"),
    ("full_paged_adamw_8bit", "none"),
    ("lora_bf16", "none"),
    ("lora_bf16", "int8"),
    ("lora_bf16", "torchao_float8"),
    ("lora_bf16", "torchao_int8"),
    ("lora_bf16", "nvfp4"),
    ("lora_bf16", "mxfp4"),
    ("lora_bf16", "int4"),
    ("lora_bf16", "hqq"),
    ("lora_bf16", "nf4"),
    ("adalora", "none"),
    ("lora_dora", "nf4"),
    ("prefix_tuning", "none"),
    ("p_tuning", "nf4"),
    ("longlora", "none"),
    ("oft", "nf4"),
    ("boft", "none"),
    ("vera", "none"),
    ("loha", "none"),
    ("lily", "none"),
    ("full_muon", "none"),
    ("full_galore", "none"),
]
SHAPE = {
    "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 2048,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "tie_word_embeddings": True,
}  # fmt: skip
SUITE = """
description = "random weights"
model = "{model}"
[corpus]
source = "{corpus}"
held_out_fraction = 0.2
[budget]
steps = 6
batch_size = 8
[training]
sequence_length = 512
micro_batch_size = 8
"""


def make_suite(folder: Path) -> Path:
    """A model with random weights, a corpus and a suite in ``folder``."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tests.runs.small_run import tree
    from tests.weights.tiny_llama import vocabulary, write_folder

    weights = write_folder(folder / "weights")
    fields = {**SHAPE, "vocab_size": len(vocabulary())}
    config = AutoConfig.for_model(str(fields.pop("model_type")), **fields)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(weights)
    corpus = folder / "trees.jsonl"
    corpus.write_text("".join(json.dumps(tree(index)) + "\n" for index in range(60)))
    lines = ['description = "random"', 'license = "Apache-2.0"', 'chat_template = "chatml"']
    lines += ["[source]", 'kind = "folder"', f"path = {json.dumps(str(weights))}", "[config]"]
    shape = {**SHAPE, "vocab_size": len(vocabulary())}
    lines += [f"{key} = {json.dumps(value)}" for key, value in shape.items()]
    (folder / "smol_shape.toml").write_text("\n".join(lines) + "\n")
    suite = folder / "suite.toml"
    suite.write_text(SUITE.format(model=folder / "smol_shape.toml", corpus=corpus))
    return suite


def tried(suite: Path, method: str, scheme: str, device: Any, settings: tuple[str, ...]) -> str:
    """One pair trained, and what it took."""
    import torch

    from harness.forecast.memory import predict
    from harness.records.events import Silence
    from harness.spec.request import Request
    from harness.train.path import resolve, train
    from tests.methods.trial import begin

    base = () if scheme == "none" else (f"quantization.type={scheme}",)
    request = Request((method,), str(suite), settings=(*base, *settings), seeds=(0,))
    (plan,) = resolve(request, device)
    if device.kind == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    job = begin(plan)
    result = train(job, Silence())
    found = [f"path {plan.training.speed}", f"{result.losses[0].loss:.4f} to "]
    found[-1] += f"{result.losses[-1].loss:.4f}"
    if result.throughput is not None:
        found.append(f"{result.throughput.median:,.0f} tokens/s")
    if device.kind == "cuda":
        predicted = predict(plan).by_phase.get("train")
        peak = torch.cuda.max_memory_allocated()
        found.append(f"peak {peak / 2**20:,.0f} MiB, predicted {(predicted or 0) / 2**20:,.0f}")
    return "; ".join(found)


def torchaos_int4(device: str) -> str:
    """What its four bits do where they run: the reason of the refusal."""
    import torch
    from torch import nn

    if device != "cuda":
        return "needs a GPU"
    from torchao.quantization import Int4WeightOnlyConfig, quantize_

    layer = nn.Sequential(nn.Linear(1024, 1024, bias=False, dtype=torch.bfloat16, device="cuda"))
    quantize_(layer, Int4WeightOnlyConfig(group_size=32, int4_packing_format="tile_packed_to_4d"))
    x = torch.randn(4, 1024, dtype=torch.bfloat16, device="cuda", requires_grad=True)
    layer(x).sum().backward()
    return f"has a gradient: {x.grad is not None}"


def main() -> None:
    """Try all pairs in order until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=110)
    parser.add_argument("--pairs", type=int, default=len(PAIRS))
    parser.add_argument("--set", action="append", default=[], help="settings for every pair")
    chosen = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["FINETUNE_HARNESS_CACHE"] = f"{scratch}/cache"
        from harness.spec.device import detect_device

        device = detect_device(chosen.device)
        suite = make_suite(Path(scratch))
        settings = ("training.learning_rate=1e-3", *chosen.set)
        work: list[tuple[str, Any]] = [
            (
                f"{method} on {scheme}",
                lambda m=method, s=scheme: tried(suite, m, s, device, settings),
            )
            for method, scheme in PAIRS[: chosen.pairs]
        ]
        work.insert(3, ("torchao's int4", lambda: torchaos_int4(chosen.device)))
        for name, run in work:
            if time.monotonic() - started > chosen.seconds:
                print(f"{name}: no time left", flush=True)
                continue
            began = time.monotonic()
            try:
                said = run()
            except Exception as error:  # told for every pair
                said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            print(f"{name}: {said} ({time.monotonic() - began:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
