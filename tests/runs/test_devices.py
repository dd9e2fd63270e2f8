"""Runs that two devices share: one record, whatever happens to either of their processes."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from harness.records.events import EventLog, EventTail, PhaseEnded, ProcessStarted
from harness.records.record import PhaseCost, RunRecord
from harness.records.store import RunFolder, RunStore
from harness.runs.devices import DeviceEnding, cause, with_devices
from harness.runs.ending import Ending
from harness.runs.options import RunOptions
from harness.runs.supervise import supervise
from harness.spec.plan import Plan
from harness.spec.storage import write_json
from tests.planned import GPU, planned
from tests.runs import forked
from tests.runs.results import files, results
from tests.runs.small_run import STEP_DONE, Heard, Small, make_small
from tests.runs.test_process import gone
from tests.train.tiny import ROUNDING

OPTIONS = RunOptions(checkpoint_seconds=0.1, silence_seconds=600)
IMPATIENT = RunOptions(checkpoint_seconds=0.1, silence_seconds=20)  # where one falls silent
STEPS = 60


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A run with time to die in."""
    return make_small(tmp_path_factory.mktemp("longer"), steps=STEPS)


@pytest.fixture(scope="module")
def unbroken(longer: Small, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunStore, RunRecord]:
    """What two devices make of it when nothing happens."""
    store = RunStore(tmp_path_factory.mktemp("unbroken"))
    record = supervise(shared(longer), store, Heard(), OPTIONS)
    assert record.status == "ok", record.problem
    return store, record


def shared(small: Small) -> Plan:
    """The plan for two devices, on the fast path, which takes no dropout."""
    fast = ("training.speed=fast", "adapter.lora_dropout=0.0")
    return small.plan(*fast, "training.devices=2")


def pid_of(folder: RunFolder, rank: int) -> int:
    """The process of a device, or torchrun's, which is called rank -1."""
    if rank < 0:
        return psutil.Process(pid_of(folder, 0)).ppid()
    events = EventTail(folder.events_of(rank)).new()
    return next(event.pid for event in events if isinstance(event, ProcessStarted))


def starve(folder: RunFolder, rank: int) -> None:
    """Leave the process of a device half of the address space that it has."""
    pid = pid_of(folder, rank)
    size = psutil.Process(pid).memory_info().vms
    resource.prlimit(pid, resource.RLIMIT_AS, (size // 2, size // 2))


def at_step(store: RunStore, number: int, act: Callable[[], None]) -> Heard:
    """Do something once, while the run waits after that many optimizer steps."""
    return Heard().halt_at(store.root, STEP_DONE, act, number)


def test_a_record_holds_what_each_device_cost(unbroken: tuple[RunStore, RunRecord]) -> None:
    _, record = unbroken
    assert record.training is not None
    assert record.training.trainer == "fast"
    costs = {cost.name: cost for cost in record.phases}
    for name in ("load", "score_base", "train", "score"):
        sizes = [device.peak_resident_bytes for device in costs[name].devices]
        assert len(sizes) == 2
        assert costs[name].peak_resident_bytes == max(size or 0 for size in sizes)
    assert costs["save"].devices == ()


def test_two_devices_learn_and_score_what_one_does(
    longer: Small, unbroken: tuple[RunStore, RunRecord], tmp_path: Path
) -> None:
    _, together = unbroken
    fast = ("training.speed=fast", "adapter.lora_dropout=0.0")
    alone = forked.supervise(longer.plan(*fast), RunStore(tmp_path), Heard(), OPTIONS)
    assert alone.training is not None
    assert together.training is not None
    losses = [[p.loss for p in run.training.losses[:20]] for run in (alone, together)]  # type: ignore[union-attr]
    assert losses[1][0] == pytest.approx(losses[0][0], abs=ROUNDING)
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    before = [[s.value for s in run.scores if s.stage == "before"] for run in (alone, together)]
    assert before[0] == before[1], "the same model in the same passes"
    after = [[s.value for s in run.scores if s.stage == "after"] for run in (alone, together)]
    assert after[1] == pytest.approx(after[0], rel=1e-4)


def test_an_interrupt_and_a_kill_leave_no_trace(
    longer: Small, unbroken: tuple[RunStore, RunRecord], tmp_path: Path
) -> None:
    """Torchrun itself is killed; slow tests kill each device's process, as do sharded runs."""
    plan, store = shared(longer), RunStore(tmp_path)
    attempt = store.folder(plan).attempt
    pids = interrupt(plan, store)
    record = store.find(plan)
    assert record is not None
    assert record.problem is not None
    assert (record.status, record.problem.phase) == ("interrupted", "train")
    assert record.environment is not None, "the first device wrote it"
    assert all(gone(pid) for pid in pids)

    heard = at_step(store, 15, lambda: os.kill(pid_of(attempt, -1), signal.SIGKILL))
    record = supervise(plan, store, heard, OPTIONS)
    assert record.problem is not None
    assert (record.problem.kind, record.problem.phase) == ("killed", "train")
    record = supervise(plan, store, Heard(), OPTIONS)
    assert record.status == "ok", record.problem
    assert record.resumed == 2
    assert results(record) == results(unbroken[1])
    assert files(store, plan) == files(unbroken[0], plan)


def interrupt(plan: Plan, store: RunStore) -> list[int]:
    """Press Ctrl-C while it trains; the processes that it had."""
    attempt = store.folder(plan).attempt
    pids: list[int] = []

    def press() -> None:
        pids.extend(pid_of(attempt, rank) for rank in (-1, 0, 1))
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        supervise(plan, store, at_step(store, 5, press), OPTIONS)
    return pids


@pytest.mark.slow
def test_a_device_without_memory_is_an_oom_of_the_run(longer: Small, tmp_path: Path) -> None:
    plan, store = shared(longer), RunStore(tmp_path)
    attempt = store.folder(plan).attempt

    record = supervise(plan, store, at_step(store, 5, lambda: starve(attempt, 1)), OPTIONS)
    assert record.problem is not None
    assert (record.status, record.problem.kind, record.problem.phase) == (
        "oom",
        "host_oom",
        "train",
    )
    assert record.problem.message.startswith("device 1: ")


@pytest.mark.slow
def test_a_device_that_hangs_ends_the_run(longer: Small, tmp_path: Path) -> None:
    plan, store = shared(longer), RunStore(tmp_path)
    attempt = store.folder(plan).attempt
    stopped: list[int] = []

    def stop() -> None:
        stopped.append(pid_of(attempt, 1))
        os.kill(stopped[0], signal.SIGSTOP)

    record = supervise(plan, store, at_step(store, 5, stop), IMPATIENT)
    assert record.problem is not None
    assert (record.status, record.problem.kind) == ("failed", "LostDevice")
    assert "does not answer" in record.problem.message
    assert gone(stopped[0])


def left(folder: RunFolder, *endings: tuple[int, float, str]) -> Ending | None:
    """The cause where processes have left these endings: rank, time, kind."""
    for rank, moment, kind in endings:
        ending = Ending("failed", kind, f"{kind} in words")
        write_json(folder.ending_of(rank), DeviceEnding.of(rank, ending, moment))
    return cause(folder, planned("lora_bf16", "training.devices=2"))


@pytest.mark.parametrize(
    ("endings", "kind", "message"),
    [
        ([(0, 5.0, "LostDevice"), (1, 6.0, "crash")], "crash", "device 1: crash in words"),
        ([(0, 5.0, "crash"), (1, 6.0, "cuda_oom")], "crash", "crash in words"),
        ([(0, 7.0, "cuda_oom"), (1, 6.0, "crash")], "crash", "device 1: crash in words"),
        ([(0, 7.0, "diverged"), (1, 6.0, "diverged")], "diverged", "diverged in words"),
        ([(0, 7.0, "interrupted"), (1, 6.0, "LostDevice")], "LostDevice", "device 1: LostDevice"),
    ],
)
def test_the_first_device_that_failed_by_itself_is_the_cause(
    tmp_path: Path, endings: list[tuple[int, float, str]], kind: str, message: str
) -> None:
    ending = left(RunFolder(tmp_path), *endings)
    assert ending is not None
    assert ending.kind == kind
    assert ending.message.startswith(message)


def test_no_word_of_any_device_is_no_cause(tmp_path: Path) -> None:
    assert left(RunFolder(tmp_path)) is None
    assert left(RunFolder(tmp_path), (0, 1.0, "interrupted"), (1, 2.0, "interrupted")) is None


def test_peaks_are_the_highest_and_joules_those_of_all_gpus(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    plan = planned("lora_bf16", "training.devices=2", device=GPU)

    def cost(peak: int, joules: float | None) -> PhaseCost:
        return PhaseCost(
            name="train",
            seconds=1.0,
            peak_allocated_bytes=peak,
            energy_joules=joules,
            energy_source="nvml",
        )

    for joules, total in ((30.0, 50.0), (None, None)):
        folder.events_of(1).unlink(missing_ok=True)
        with EventLog(folder.events_of(1)) as log:
            log.emit(PhaseEnded.now(cost=cost(7, joules)))
        record = RunRecord(
            plan=plan,
            fingerprint=plan.fingerprint,
            status="ok",
            started_at="2026-01-01T00:00:00+00:00",
            seconds=2.0,
            environment=None,
            phases=(cost(5, 20.0),),
        )
        (found,) = with_devices(record, folder).phases
        assert (found.peak_allocated_bytes, found.energy_joules) == (7, total)
        assert [device.peak_allocated_bytes for device in found.devices] == [5, 7]
        assert with_devices(record, folder) == with_devices(with_devices(record, folder), folder)


SUPERVISOR = """
import sys
from harness.records.store import RunStore
from harness.runs.options import RunOptions
from harness.runs.supervise import supervise
from harness.spec.plan import Plan
plan = Plan.model_validate_json(sys.stdin.read())
supervise(plan, RunStore(sys.argv[1]), lambda _: None, RunOptions(checkpoint_seconds=0.1))
"""


def kill_parent(plan: Plan, store: RunStore, seconds: float) -> list[int]:
    """Kill whoever watches over the run, some time into it; the processes that there were."""
    folder = store.folder(plan).attempt
    parent = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(store.root)], stdin=subprocess.PIPE, text=True
    )
    assert parent.stdin is not None
    parent.stdin.write(plan.model_dump_json())
    parent.stdin.close()
    deadline = time.monotonic() + 900
    while not folder.events_of(1).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(seconds)
    children = psutil.Process(parent.pid).children(recursive=True)
    parent.kill()
    parent.wait()
    return [child.pid for child in children]


@pytest.mark.slow
def test_ten_kills_at_random_moments_leave_no_trace(
    longer: Small, unbroken: tuple[RunStore, RunRecord], tmp_path: Path
) -> None:
    """Of either process, of torchrun (rank -1) and of the parent (None)."""
    plan, chance = shared(longer), random.Random(17)
    kills = runs = 0
    while kills < 10:
        runs += 1
        store = RunStore(tmp_path / f"killed {runs}")
        attempt = store.folder(plan).attempt
        record = None
        while record is None or record.status != "ok":
            who = chance.choice([-1, 0, 1, None]) if kills < 10 else 0
            if kills < 10 and who is None:
                kills += 1
                pids = kill_parent(plan, store, chance.uniform(0, 15))
                _, alive = psutil.wait_procs(
                    [psutil.Process(p) for p in pids if psutil.pid_exists(p)], 300
                )
                assert alive == []
                continue
            step = chance.randrange(1, STEPS) if kills < 10 else STEPS + 1

            def kill(rank: int = who or 0, attempt: RunFolder = attempt) -> None:
                with suppress(ProcessLookupError, psutil.Error):
                    os.kill(pid_of(attempt, rank), signal.SIGKILL)

            record = supervise(plan, store, at_step(store, step, kill), OPTIONS)
            kills += record.status != "ok"
            assert record.problem is None or record.problem.kind == "killed", record.problem
        assert results(record) == results(unbroken[1])
        assert files(store, plan) == files(unbroken[0], plan)
