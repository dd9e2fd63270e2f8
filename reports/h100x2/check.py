"""Check: whole runs on two devices through the harness itself, and what happens to broken ones.

``python reports/h100x2/check.py --out FOLDER [--only NAME,…]``, on a machine with two GPUs, or on
a CPU to try it. A tiny model in random weights, a few hand-made trees. Prints one line a check,
writes check.json, and exits with 1 if anything is off.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])

from harness.records.events import Event, EventTail, ProcessStarted
from harness.records.record import RunRecord
from harness.records.store import RunFolder, RunStore
from harness.runs.options import RunOptions
from harness.runs.supervise import supervise
from harness.spec.device import detect_device
from harness.spec.plan import Plan
from harness.spec.request import Request
from harness.train.path import resolve
from tests.runs.results import results
from tests.runs.small_run import Heard, make_small, trains

OPTIONS = RunOptions(checkpoint_seconds=0.1, silence_seconds=15)
STEPS = 40
LONG = 4000  # steps of a run that is stopped in the middle, however fast they are
HOG = """
import sys, time, torch
torch.cuda.init()
free, _ = torch.cuda.mem_get_info()
held = torch.empty(free - (int(sys.argv[1]) << 20), dtype=torch.uint8, device="cuda")
print("held", flush=True)
time.sleep(600)
"""


class Checks:
    """Runs and what they showed."""

    def __init__(self, out: Path) -> None:
        os.environ["FINETUNE_HARNESS_CACHE"] = str(out / "cache")
        self.out = out
        self.small = make_small(out / "small", steps=STEPS)
        self.long = make_small(out / "long", steps=LONG)
        self.device = detect_device()
        self.found: dict[str, Any] = {"device": self.device.model_dump()}
        self.failed: list[str] = []
        self.reference: RunRecord | None = None

    def plan(self, devices: int, seed: int = 0, *, long: bool = False) -> Plan:
        """The plan of a small QLoRA run on the fast path."""
        settings = ["adapter.r=8", "training.speed=fast"]
        settings += [f"training.devices={devices}"] if devices > 1 else []
        suite = self.long.suite if long else self.small.suite
        asked = Request(("qlora_nf4",), str(suite), tuple(settings), seeds=(seed,))
        (plan,) = resolve(asked, self.device)
        return plan

    def run(self, name: str, devices: int, heard: Heard | None = None, seed: int = 0) -> RunRecord:
        """One run into the store ``name``."""
        return self.carry_out(name, self.plan(devices, seed), heard or Heard())

    def carry_out(self, name: str, plan: Plan, heard: Heard) -> RunRecord:
        """A plan into the store ``name``."""
        started = time.monotonic()
        record = supervise(plan, RunStore(self.out / name), heard, OPTIONS)
        problem = None if record.problem is None else record.problem.model_dump()
        if problem is not None:
            problem["log_tail"] = problem["log_tail"][-1500:]
        self.found.setdefault(name, []).append(
            {
                "status": record.status,
                "problem": problem,
                "seconds": time.monotonic() - started,
                "phases": [cost.model_dump(exclude_defaults=True) for cost in record.phases],
                "scores": {f"{s.stage} {s.metric}": s.value for s in record.scores},
                "losses": [p.loss for p in record.training.losses] if record.training else None,
            }
        )
        self.write()
        return record

    def show(self, name: str, *, passed: bool, words: object = "") -> None:
        """Print one check, and remember a failed one."""
        print(f"{'ok  ' if passed else 'FAIL'} {name} {words}", flush=True)
        if not passed:
            self.failed.append(name)

    def together(self) -> None:
        """Two devices learn and score what one does."""
        alone, both = self.run("one", 1), self.run("two", 2)
        self.reference = both
        self.show("two devices end well", passed=both.status == "ok", words=both.problem)
        if alone.training is None or both.training is None:
            return
        pairs = list(zip(alone.training.losses, both.training.losses, strict=True))
        largest = max(abs(a.loss - b.loss) for a, b in pairs[:20])
        self.show("first 20 losses within 1e-3", passed=largest <= 1e-3, words=f"{largest:.2e}")
        before = [[s.value for s in run.scores if s.stage == "before"] for run in (alone, both)]
        self.show("the same scores before training", passed=before[0] == before[1])
        each = next(cost.devices for cost in both.phases if cost.name == "train")
        self.show("the cost of each device", passed=len(each) == 2, words=each)
        gap, noise = _gap(alone, both), _gap(alone, self.run("another seed", 1, seed=1))
        words = f"{gap:.1e} of the score, another seed {noise:.1e}"
        self.show("final scores within seed noise", passed=gap < noise, words=words)

    def killed(self) -> None:
        """The second device's process killed in the middle, and the run resumed."""
        self.kill(1)

    def killed_first(self) -> None:
        """The same of the first device's."""
        self.kill(0)

    def kill(self, rank: int) -> None:
        """Kill the process of a device, and go on."""
        name = f"killed {rank}"

        def kill(folder: RunFolder) -> None:
            os.kill(pid_of(folder, rank), signal.SIGKILL)

        record = self.run(name, 2, self.at_step(name, 12, kill))
        kind = record.problem.kind if record.problem else None
        self.show(name, passed=kind == "killed", words=record.problem and record.problem.message)
        record = self.run(name, 2)
        if self.reference is not None and record.status == "ok":
            same = results(record) == results(self.reference)
            self.show(f"{name}, resumed bit for bit", passed=same)
        else:
            self.show(f"{name}, resumed", passed=record.status == "ok", words=record.problem)

    def full(self) -> None:
        """The second device has no memory left, not even for CUDA itself."""
        self.fill(200)

    def nearly_full(self) -> None:
        """The second device has memory for CUDA and for a small model, and not for NCCL."""
        self.fill(900)

    def fill(self, left: int) -> None:
        """A run beside a process that leaves ``left`` MiB of the second device."""
        name = f"{left} MiB left"
        visible = (os.environ.get("CUDA_VISIBLE_DEVICES") or "0,1").split(",")
        hog = subprocess.Popen(
            [sys.executable, "-c", HOG, str(left)],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": visible[1]},
            stdout=subprocess.PIPE,
        )
        try:
            assert hog.stdout is not None
            hog.stdout.readline()
            record = self.run(name, 2)
        finally:
            hog.kill()
            hog.wait()
        told = record.problem and (record.problem.kind, record.problem.phase)
        message = record.problem.message if record.problem else ""
        passed = record.status == "oom" and message.startswith("device 1")
        self.show(f"second device, {name}", passed=passed, words=(record.status, told, message))

    def hangs(self) -> None:
        """The second device's process stops in the middle of training."""
        plan, stopped = self.plan(2, long=True), []

        def stop(folder: RunFolder) -> None:
            os.kill(pid_of(folder, 1), signal.SIGSTOP)
            stopped.append(time.monotonic())

        heard = self.at_step("hangs", 12, stop, plan)
        record = self.carry_out("hangs", plan, heard)
        seconds = time.monotonic() - stopped[0] if stopped else float("nan")
        self.found["hangs"][-1]["seconds_from_the_stop"] = seconds
        self.write()
        passed = record.status == "failed" and "does not answer" in str(record.problem)
        words = record.problem and (record.problem.kind, record.problem.message)
        self.show("a device that hangs", passed=passed, words=(words, f"{seconds:.0f} s later"))

    def write(self) -> None:
        """What has been found so far."""
        (self.out / "check.json").write_text(json.dumps(self.found, indent=1))

    def at_step(
        self, store: str, number: int, act: Callable[[RunFolder], None], plan: Plan | None = None
    ) -> Heard:
        """Do something with a run in its folder when that many steps have been heard of."""
        folder = RunStore(self.out / store).folder(plan or self.plan(2)).attempt
        heard, seen = Heard(), 0

        def count(event: Event) -> None:
            nonlocal seen
            seen += trains(event)
            if seen == number:
                heard.act = None
                act(folder)

        heard.act = count
        return heard


def _gap(one: RunRecord, other: RunRecord) -> float:
    """The largest relative difference of scores after training."""
    ends = [[s.value for s in run.scores if s.stage != "before"] for run in (one, other)]
    return max((abs(a / b - 1) for a, b in zip(*ends, strict=True)), default=float("nan"))


def pid_of(folder: RunFolder, rank: int) -> int:
    """The process of a device."""
    events = EventTail(folder.events_of(rank)).new()
    return next(event.pid for event in events if isinstance(event, ProcessStarted))


def main() -> int:
    """Every check that was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--only", default="together,killed,killed_first,full,nearly_full,hangs")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    checks = Checks(arguments.out.resolve())
    for name in arguments.only.split(","):
        check: Callable[[], None] = getattr(checks, name)
        if name in ("full", "nearly_full") and checks.device.kind == "cpu":
            continue
        check()
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
