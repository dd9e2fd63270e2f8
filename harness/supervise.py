"""Supervise: start the child, pass on what it says, and classify how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.errors import StorageError
from harness.events import read_events
from harness.plan import Plan
from harness.record import PhaseCost, Problem, RunRecord, Status
from harness.schema import parse, read_json, write_json
from harness.store import RunFolder, RunStore

POLL_SECONDS = 0.1
GRACE_SECONDS = 15.0
LOG_TAIL_CHARACTERS = 2_000

Watch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Order:
    """How to treat a plan: run it although a record exists, and for how long at most."""

    force: bool = False
    timeout_seconds: float | None = None


def supervise(plan: Plan, store: RunStore, watch: Watch, order: Order = Order()) -> RunRecord:
    """Run ``plan`` in a child process, unless an equal plan has already been run well.

    ``watch`` is called with every event of the child. The record is on disk when this returns.

    Raises:
        StorageError: the run folder cannot be written, or another process is working in it.
        KeyboardInterrupt: after the child has been stopped and its record written.
    """
    known = store.find(plan)
    if known is not None and known.status == "ok" and not order.force:
        return known
    folder = store.folder(plan)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.lock)
        with lock.acquire(timeout=0):
            return _attempt(plan, folder, watch, order)
    except Timeout:
        raise StorageError(
            "another process is running this very plan",
            where=folder.path,
            hint="wait for it to finish; the record will then be reused",
        ) from None
    except OSError as error:
        raise StorageError(
            f"cannot use the run folder: {error.strerror}", where=folder.path
        ) from error


def _attempt(plan: Plan, folder: RunFolder, watch: Watch, order: Order) -> RunRecord:
    for stale in (folder.record, folder.events, folder.log):
        stale.unlink(missing_ok=True)
    write_json(folder.plan, plan)
    started, clock = datetime.now(UTC), time.monotonic()
    ending = _run_process(folder, watch, order.timeout_seconds)
    if not folder.record.is_file():
        record = _posthumous(plan, folder, ending, started)
        record = record.model_copy(update={"seconds": time.monotonic() - clock})
        write_json(folder.record, record)
    record = _with_log_tail(read_json(folder.record, RunRecord), folder)
    if record.problem is not None:
        write_json(folder.record, record)
    if ending.interrupted:
        raise KeyboardInterrupt
    return record


@dataclass(frozen=True)
class Ending:
    """How the child process ended."""

    returncode: int
    interrupted: bool = False
    timed_out: bool = False
    oom_kills: int = 0


def _run_process(folder: RunFolder, watch: Watch, timeout_seconds: float | None) -> Ending:
    kills = _oom_kills()
    interrupted = timed_out = False
    with folder.log.open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "harness.run", str(folder.path)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the child through us, once
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        tail = _Tail(folder.events)
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        try:
            while child.poll() is None:
                for event in tail.new():
                    watch(event)
                if deadline is not None and time.monotonic() > deadline:
                    timed_out = True
                    _stop(child)
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            interrupted = True
            _stop(child)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
            if child.stdin is not None:
                child.stdin.close()
        for event in tail.new():
            watch(event)
    return Ending(child.returncode, interrupted, timed_out, _oom_kills() - kills)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ask the child to end, wait for its record, then insist."""
    child.send_signal(signal.SIGINT)
    try:
        child.wait(GRACE_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.kill()
        child.wait()


class _Tail:
    """New whole lines of a growing events file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = 0

    def new(self) -> Iterator[dict[str, Any]]:
        events = list(read_events(self._path))
        yield from events[self._seen :]
        self._seen = len(events)


def _oom_kills() -> int:
    """How often the kernel has killed a process for memory, as far as it tells us."""
    for path, key in (
        (Path("/sys/fs/cgroup/memory.events"), "oom_kill"),
        (Path("/proc/vmstat"), "oom_kill"),
    ):
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    return 0


def _posthumous(plan: Plan, folder: RunFolder, ending: Ending, started: datetime) -> RunRecord:
    """The record of a child that died without leaving one, from its events."""
    phase, step, phases = None, None, []
    for event in read_events(folder.events):
        if event["kind"] == "phase_start":
            phase, step = event["phase"], None
        elif event["kind"] == "progress" and phase == "train":
            step = event["done"]
        elif event["kind"] == "phase_end":
            phases.append(parse(PhaseCost, event["cost"], where=folder.events))
    status, kind, message = _classify(ending)
    return RunRecord(
        plan=plan,
        fingerprint=plan.fingerprint,
        status=status,
        started_at=started.isoformat(timespec="seconds"),
        seconds=0.0,
        environment=None,
        phases=tuple(phases),
        problem=Problem(kind=kind, phase=phase, step=step, message=message),
    )


def _classify(ending: Ending) -> tuple[Status, str, str]:
    if ending.interrupted:
        return "interrupted", "interrupted", "interrupted by the user"
    if ending.timed_out:
        return "failed", "timed_out", "stopped at the time limit"
    if ending.returncode == -signal.SIGKILL:
        if ending.oom_kills > 0:
            return "oom", "host_oom", "killed by the kernel: the machine's memory is exhausted"
        return "failed", "killed", "killed by another process (SIGKILL)"
    if ending.returncode < 0:
        name = signal.Signals(-ending.returncode).name
        return "failed", "killed", f"ended by {name}"
    return "failed", "crash", f"the process ended with exit code {ending.returncode}"


def _with_log_tail(record: RunRecord, folder: RunFolder) -> RunRecord:
    if record.problem is None or not folder.log.is_file():
        return record
    text = folder.log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL_CHARACTERS:]
    problem = record.problem.model_copy(update={"log_tail": text})
    return record.model_copy(update={"problem": problem})
