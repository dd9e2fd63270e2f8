"""Sharded: QLoRA on a base that two devices share against one device, through the harness itself.

``python reports/h100x2/sharded.py --out FOLDER [--tiny] [--steps 10]``, on a machine with two
GPUs, or on a CPU to try it, without network. Phi-2's shape in random weights, NF4 with double
quantization, or what ``--variants`` names. ``--only sharded`` and ``--only alone --against
sharded.json`` divide it, so that the second part can run on one device beside something else.
Prints one line a check, writes sharded.json, and exits with 1 if anything is off.
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
from harness.records.store import RunStore
from harness.runs.options import RunOptions
from harness.runs.supervise import supervise
from harness.spec.device import detect_device
from harness.spec.plan import Plan
from harness.spec.request import Request
from harness.train.path import resolve
from reports.h100x2.told import Told
from tests.runs.small_run import make_small

GIB = 1 << 30
SHAPE = ROOT / "harness" / "models" / "phi2_shape.toml"
SMALLER = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 3,
    "vocab_size": 512,
}
SUITE = """
description = "sharded against whole"
model = "{model}"
[corpus]
source = "sample"
policy = "all_paths"
held_out_limit = 2
[budget]
steps = {steps}
batch_size = 4
[training]
sequence_length = {length}
packing = true
micro_batch_size = 2
[score]
held_out_tokens = 512
window = 256
stride = 128
"""


KEPT = {"status", "problem", "phases", "training", "scores"}


class Checks:
    """Runs and what they showed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.out = options.out.resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        os.environ["FINETUNE_HARNESS_CACHE"] = str(self.out / "cache")
        make_small(self.out / "small")
        self.suite = self._write(options)
        self.device = detect_device()
        self.only = options.only
        self.found: dict[str, Any] = {"device": self.device.model_dump()}
        if options.against:
            self.found |= json.loads(options.against.read_text())
        self.failed: list[str] = []

    def _write(self, options: argparse.Namespace) -> Path:
        text = SHAPE.read_text().replace(
            "smollm2_135m_instruct", str(self.out / "small/small.toml")
        )
        text = text.replace('kind = "random"', 'kind = "drawn"')
        if options.tiny:
            shape = tomllib.loads(text)["config"]
            for key, value in SMALLER.items():
                text = text.replace(f"{key} = {shape[key]}\n", f"{key} = {value}\n")
        if options.layers:
            deep = tomllib.loads(text)["config"]["num_hidden_layers"]
            lines = [f"num_hidden_layers = {one}\n" for one in (deep, options.layers)]
            text = text.replace(*lines)
        (self.out / "phi2.toml").write_text(text)
        suite = self.out / "suite.toml"
        length = 128 if options.tiny else 1024
        model = self.out / "phi2.toml"
        suite.write_text(SUITE.format(model=model, steps=options.steps, length=length))
        return suite

    def plan(self, variant: str, *settings: str) -> Plan:
        """A plan on the plain path, on this machine."""
        given = ("training.speed=plain", *settings)
        (plan,) = resolve(Request((variant,), str(self.suite), given, seeds=(0,)), self.device)
        return plan

    def run(self, name: str, plan: Plan) -> None:
        """One run into the store ``name``; what it found is kept."""
        started = time.monotonic()
        foreseen = predict(plan)
        store = RunStore(self.out / name)
        told = Told(store.folder(plan).attempt, plan.training.devices, self.out / "told.json")
        record = supervise(plan, store, told, RunOptions(silence_seconds=60))
        seconds = time.monotonic() - started
        kept = record.model_dump(mode="json", include=KEPT)
        self.found[name] = {**kept, "predicted": foreseen and foreseen.model_dump()}
        (self.out / "sharded.json").write_text(json.dumps(self.found, indent=1))
        self.show(f"{name} ends well", passed=record.status == "ok", words=f"{seconds:.0f} s")
        if record.problem is not None:
            print(record.problem.message, record.problem.log_tail[-2500:], flush=True)
        if record.training is not None:
            print("  tokens/s", record.training.throughput.median, flush=True)
        for cost in record.phases:
            peak = (cost.peak_allocated_bytes or 0) / GIB
            told = 0 if foreseen is None else foreseen.by_phase.get(cost.name, 0) / GIB
            print(f"  {cost.name}: {cost.seconds:.1f} s, {peak:.2f} GiB, predicted {told:.2f}")

    def show(self, name: str, *, passed: bool, words: object = "") -> None:
        """Print one check, and remember a failed one."""
        print(f"{'ok  ' if passed else 'FAIL'} {name} {words}", flush=True)
        if not passed:
            self.failed.append(name)

    def compare(self, variant: str) -> None:
        """The first losses and the memory of two devices that share a base against one."""
        names = [f"{variant} sharded", f"{variant} alone"]
        if self.only != "alone":
            spread = ("training.devices=2", "training.parallel=sharded")
            self.run(names[0], self.plan(variant, *spread))
        if self.only != "sharded":
            self.run(names[1], self.plan(variant))
        both, alone = (self.found.get(name) for name in names)
        if both is not None and both["status"] == "ok" and self.only != "alone":
            self.measure(variant, both)
        if both is None or alone is None or not both["training"] or not alone["training"]:
            return
        pairs = zip(alone["training"]["losses"], both["training"]["losses"], strict=True)
        gaps = [abs(one["loss"] - other["loss"]) for one, other in pairs]
        words = " ".join(f"{gap:.1e}" for gap in gaps)
        self.show(f"{variant}: losses within 1e-3", passed=max(gaps) <= 1e-3, words=words)
        before = [
            [s["value"] for s in run["scores"] if s["stage"] == "before"] for run in (alone, both)
        ]
        gap = max(abs(a / b - 1) for a, b in zip(*before, strict=True))
        self.show(f"{variant}: untrained scores", passed=gap <= 1e-3, words=f"{gap:.1e}")

    def measure(self, variant: str, both: dict[str, Any]) -> None:
        """The memory of two devices against what was predicted."""
        for name in ("load", "train"):
            cost = next(cost for cost in both["phases"] if cost["name"] == name)
            if both["predicted"] is None or not cost["peak_allocated_bytes"]:
                continue
            ratio = cost["peak_allocated_bytes"] / both["predicted"]["by_phase"][name]
            passed, words = abs(ratio - 1) <= 0.1, f"{ratio:.3f} of the prediction"
            self.show(f"{variant}: peak of {name} within 10 %", passed=passed, words=words)


def main() -> int:
    """Every variant that was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--variants", default="qlora_nf4_dq,lora_bf16")
    parser.add_argument("--layers", type=int, help="of Phi-2's 32")
    parser.add_argument("--only", choices=["sharded", "alone"], help="one part of each")
    parser.add_argument("--against", type=Path, help="sharded.json of the other part")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    checks = Checks(options)
    for variant in options.variants.split(","):
        checks.compare(variant)
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
