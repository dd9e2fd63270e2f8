"""Sharded: QLoRA on a base that two devices share against one device, through the harness itself.

``python reports/h100x2/sharded.py --out FOLDER [--tiny] [--steps 10]``, on a machine with two
GPUs, or on a CPU to try it, without network. Phi-2's shape in random weights, NF4 with double
quantization. Prints one line a check, writes sharded.json, and exits with 1 if anything is off.
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
from harness.spec.plan import Plan
from harness.spec.request import Request
from harness.train.path import resolve
from tests.runs.small_run import Heard, make_small

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


class Checks:
    """Runs and what they showed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.out = options.out.resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        os.environ["FINETUNE_HARNESS_CACHE"] = str(self.out / "cache")
        make_small(self.out / "small")
        self.suite = self._write(options)
        self.device = detect_device()
        self.found: dict[str, Any] = {"device": self.device.model_dump()}
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

    def run(self, name: str, plan: Plan) -> RunRecord:
        """One run into the store ``name``."""
        started = time.monotonic()
        foreseen = predict(plan)
        record = supervise(plan, RunStore(self.out / name), Heard(), RunOptions(silence_seconds=60))
        seconds = time.monotonic() - started
        kept = record.model_dump(mode="json", include={"status", "problem", "phases", "training"})
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
        return record

    def show(self, name: str, *, passed: bool, words: object = "") -> None:
        """Print one check, and remember a failed one."""
        print(f"{'ok  ' if passed else 'FAIL'} {name} {words}", flush=True)
        if not passed:
            self.failed.append(name)

    def compare(self, variant: str) -> None:
        """The first losses and the memory of two devices that share a base against one."""
        spread = ("training.devices=2", "training.parallel=sharded")
        both = self.run(f"{variant} sharded", plan := self.plan(variant, *spread))
        alone = self.run(f"{variant} alone", self.plan(variant))
        if both.training is None or alone.training is None:
            return
        pairs = zip(alone.training.losses, both.training.losses, strict=True)
        largest = max(abs(one.loss - other.loss) for one, other in pairs)
        self.show(f"{variant}: losses within 1e-3", passed=largest <= 1e-3, words=f"{largest:.1e}")
        before = [[s.value for s in run.scores if s.stage == "before"] for run in (alone, both)]
        gap = max(abs(a / b - 1) for a, b in zip(*before, strict=True))
        self.show(f"{variant}: untrained scores", passed=gap <= 1e-3, words=f"{gap:.1e}")
        foreseen = predict(plan)
        train = next(cost for cost in both.phases if cost.name == "train")
        if foreseen is None or not train.peak_allocated_bytes:
            return
        ratio = train.peak_allocated_bytes / foreseen.by_phase["train"]
        words = f"{ratio:.3f} of the prediction"
        self.show(f"{variant}: peak within 10 %", passed=abs(ratio - 1) <= 0.1, words=words)


def main() -> int:
    """Every variant that was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--variants", default="qlora_nf4_dq,lora_bf16")
    parser.add_argument("--layers", type=int, help="of Phi-2's 32")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    checks = Checks(options)
    for variant in options.variants.split(","):
        checks.compare(variant)
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
