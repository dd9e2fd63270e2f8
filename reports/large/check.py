"""Check: a model of 70 billion parameters on one device, through the harness itself.

``python reports/large/check.py --out FOLDER [--rows 4] [--steps 7] [--tiny]``, without network;
``--memory-gib 72`` keeps what layers computed as far as that goes, ``--devices 2`` with
``--parallel sharded`` or ``data`` uses two GPUs.
Llama-3.3-70B's shape in random weights, NF4 with double quantization, the fast path with inputs
of layers in host memory. Prints speed, memory and every step, and writes check.json; exits with 1
if anything is off.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])

from harness.forecast.memory import predict
from harness.records.record import RunRecord
from harness.records.store import RunStore
from harness.runs.options import RunOptions
from harness.runs.supervise import supervise
from harness.spec.device import detect_device
from harness.spec.request import Request
from harness.train.path import resolve
from reports.h100x2.told import Told
from tests.runs.small_run import make_small

GIB = 1 << 30
OUTLIER = 1.5  # times the median step
SHAPE = ROOT / "harness" / "models" / "llama33_70b_shape.toml"
SUITE = """
description = "speed of a large model"
model = "{model}"
[corpus]
source = "sample"
policy = "all_paths"
held_out_limit = {held_out}
[budget]
steps = {steps}
batch_size = {batch}
[training]
sequence_length = {length}
packing = true
micro_batch_size = {rows}
gradient_checkpointing = true
activation_offload = true
speed = "fast"
[score]
held_out_tokens = {scored}
window = {scored}
stride = {stride}
"""
SCORED, LITTLE = (2, 512), (1, 128)  # held-out conversations, tokens of each


def write_files(out: Path, options: argparse.Namespace) -> Path:
    """The model's file with a tokenizer that is at hand, and a suite for it."""
    os.environ["FINETUNE_HARNESS_CACHE"] = str(out / "cache")
    make_small(out / "small")
    text = SHAPE.read_text().replace("smollm2_135m_instruct", str(out / "small" / "small.toml"))
    length = 2048
    if options.tiny:
        length = 128
        shape = tomllib.loads(text)["config"]
        for key, value in {"hidden_size": 64, "intermediate_size": 224, "head_dim": 16,
                           "num_attention_heads": 4, "num_key_value_heads": 2,
                           "num_hidden_layers": 6, "vocab_size": 512}.items():  # fmt: skip
            text = text.replace(f"{key} = {shape[key]}", f"{key} = {value}")
    model = out / "large.toml"
    model.write_text(text)
    suite = out / "large_suite.toml"
    held_out, scored = LITTLE if options.little_scoring else SCORED
    suite.write_text(
        SUITE.format(
            held_out=held_out,
            scored=scored,
            stride=scored // 2,
            model=model,
            steps=options.steps,
            rows=options.rows,
            batch=options.rows * options.devices,
            length=length,
        )
    )
    return suite


def settings_of(options: argparse.Namespace) -> list[str]:
    """What the options add to the suite."""
    found = []
    if options.memory_gib is not None:
        found += ["training.gradient_checkpointing=auto"]
        found += [f"training.memory_gib={options.memory_gib}"]
    if options.devices > 1:
        found += [f"training.devices={options.devices}", f"training.parallel={options.parallel}"]
    return found


def show(record: RunRecord) -> list[str]:
    """Print what a run did; returns what is off."""
    for cost in record.phases:
        taken = cost.model_dump(include={"name", "seconds", "peak_allocated_bytes"})
        print(taken, flush=True)
    if record.status != "ok" or record.training is None:
        print(record.problem, flush=True)
        return [record.status]
    steps = [point.seconds for point in record.training.losses]
    print("seconds of each step", [round(one, 2) for one in steps])
    print("losses", [round(point.loss, 3) for point in record.training.losses])
    print("tokens/s", record.training.throughput.model_dump())
    peak = max((cost.peak_allocated_bytes or 0) for cost in record.phases)
    print(f"peak {peak / GIB:.2f} GiB")
    median = sorted(steps)[len(steps) // 2]
    slow = [index for index, one in enumerate(steps) if one > OUTLIER * median and index > 0]
    return [f"step {index + 1} took {steps[index]:.1f} s" for index in slow]


def main() -> int:
    """One run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--little-scoring", action="store_true", help="only what must be scored")
    parser.add_argument("--memory-gib", type=float, help="keep as many layers as fit")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--parallel", default="data", choices=["data", "sharded"])
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    suite = write_files(out, options)
    asked = Request(("qlora_nf4_dq",), str(suite), tuple(settings_of(options)), seeds=(0,))
    (plan,) = resolve(asked, detect_device())
    print("substitutions", [item.model_dump() for item in plan.substitutions], flush=True)
    foreseen = predict(plan)
    parts = {} if foreseen is None else {k: v / GIB for k, v in foreseen.by_phase.items()}
    print("predicted GiB", {key: round(value, 2) for key, value in parts.items()}, flush=True)
    started = time.monotonic()
    store = RunStore(out / "runs")
    told = Told(store.folder(plan).attempt, options.devices, out / "told.json")
    record = supervise(plan, store, told, RunOptions())
    print(f"whole run {time.monotonic() - started:.1f} s", flush=True)
    wrong = show(record)
    found: dict[str, Any] = {"record": record.model_dump(mode="json"), "predicted_gib": parts}
    (out / "check.json").write_text(json.dumps(found, indent=1))
    print("FAIL" if wrong else "ok", *wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
