"""Attempt: one try at a plan, from a prepared folder to the result of the run."""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self

from filelock import FileLock, Timeout

from harness.errors import HarnessError, StorageError
from harness.records.events import (
    Advanced,
    EventTail,
    Hear,
    PhaseEnded,
    PhaseStarted,
    Validated,
    ValidationStarted,
)
from harness.records.record import PhaseCost, PhaseName, Problem, RunRecord
from harness.records.store import RunFolder
from harness.runs.devices import cause, with_devices
from harness.runs.early_start import early_or_afresh
from harness.runs.ending import ABANDONED, TOLD_TO_END, Ending, without_secrets
from harness.runs.options import RunOptions
from harness.runs.process import (
    Child,
    Start,
    child_command,
    in_fresh_process,
    log_tail,
    run_process,
    tell,
)
from harness.runs.stop import Stop
from harness.runs.warm_start import ColdStart, warm_start
from harness.spec.plan import Plan
from harness.spec.storage import read_json, write_json

LEFTOVER_SECONDS = 60.0


class Attempt:
    """One try at a plan: how it started, how it ended, and how it becomes the result.

    It works in the folder ``attempt`` of its run and is published from there. The caller holds
    the lock of the run's folder.
    """

    def __init__(self, plan: Plan, folder: RunFolder, together: int = 1) -> None:
        """Take the plan, the folder of its run, and how many plans its process carries out."""
        self.plan = plan
        self._together = together
        self.ending = ABANDONED  # unless something else is known
        self._result = folder
        self.folder = folder.attempt
        self._started_at = datetime.now(UTC)
        self._seconds = 0.0

    @classmethod
    def left_in(cls, folder: RunFolder) -> Self:
        """The attempt that nobody watches over any more.

        Raises:
            HarnessError: its plan cannot be read.
        """
        return cls(read_json(folder.attempt.plan, Plan), folder)

    def carry_out(self, options: RunOptions, hear: Hear, stop: Stop) -> RunRecord:
        """Run the child until it ends; returns the record, which is not stored yet.

        Raises:
            StorageError: the folder cannot be used.
        """
        clock = time.monotonic()
        try:
            self.prepare(options)
            start = self._start(options, hear, stop)
            self.ending = run_process(start, self.folder, hear, options.timeout_seconds, stop)
        except OSError as error:
            raise StorageError(
                f"cannot use the run folder: {error.strerror}", where=self._result.path
            ) from error
        self._seconds = time.monotonic() - clock
        return self.record()

    def _start(self, options: RunOptions, hear: Hear, stop: Stop) -> Start:
        """A fork of a process that has the libraries, where the options ask for it; or afresh."""
        devices = self.plan.training.devices
        if devices > 1:
            return in_fresh_process(child_command(self.folder, devices=devices))
        afresh = early_or_afresh(self.folder)
        if not options.warm:
            return afresh

        def start(log: IO[bytes]) -> Child:
            if not warm_start().is_ready:
                tell(hear, "loading the libraries that all runs share")
            try:
                return warm_start().start(self.folder, log, stop)
            except ColdStart as reason:
                tell(hear, f"starting afresh: {reason}")
                return afresh(log)

        return start

    def prepare(self, options: RunOptions) -> None:
        """Empty the attempt's folder, except for what a run of this plan can resume from.

        Raises:
            OSError: the folder cannot be written.
            StorageError: likewise, or a child of an earlier attempt does not end.
        """
        folder = self.folder
        folder.path.mkdir(parents=True, exist_ok=True)
        try:
            with ExitStack() as locks:
                for rank in range(self.plan.training.devices):
                    lock = FileLock(folder.lock_of(rank), timeout=LEFTOVER_SECONDS)
                    locks.enter_context(lock)
                if options.force or not self._goes_on():
                    shutil.rmtree(folder.path)
                others = [*folder.path.glob("events-*.jsonl"), *folder.path.glob("ending-*.json")]
                for stale in (folder.record, folder.events, folder.log, *others):
                    stale.unlink(missing_ok=True)
        except Timeout:
            raise StorageError(
                "a process of an earlier attempt has not ended", where=folder.path
            ) from None
        write_json(folder.options, options)
        write_json(folder.plan, self.plan)

    def _goes_on(self) -> bool:
        try:
            return read_json(self.folder.plan, Plan).fingerprint == self.plan.fingerprint
        except HarnessError:
            return False

    def ended(self, ending: Ending, seconds: float) -> None:
        """Say how the process ended that carried out this attempt and others."""
        self.ending, self._seconds = ending, seconds

    def record(self) -> RunRecord:
        """The child's own record, or else one made of its events, fit to be published."""
        try:
            written = read_json(self.folder.record, RunRecord)
        except HarnessError:
            written = None
        return self._cleaned(written or self._posthumous())

    def _cleaned(self, record: RunRecord) -> RunRecord:
        """The record with the end of the log and without secrets, and with the right ending."""
        record = with_devices(record, self.folder)
        if record.problem is None:
            return record
        update: dict[str, Any] = {}
        kind, message = record.problem.kind, record.problem.message
        ending = cause(self.folder, self.plan)
        if self.ending.kind in TOLD_TO_END:  # whatever error the signal became in a library
            ending = self.ending
        if ending is not None:
            kind, message = ending.kind, ending.message
            update["status"] = ending.status
        update["problem"] = Problem(
            kind=kind,
            phase=record.problem.phase,
            step=record.problem.step,
            message=without_secrets(message),
            log_tail=without_secrets(log_tail(self.folder)),
        )
        return record.model_copy(update=update)

    def _posthumous(self) -> RunRecord:
        """The record of a child that died without leaving one, from what it said."""
        account = read_account(self.folder.events)
        started_at, seconds = account.started_at, account.seconds
        if started_at is None:  # it never said anything
            started_at, seconds = self._started_at, self._seconds
        seconds /= self._together  # as its phases, of which it was told its share
        message = self.ending.message
        if account.skipped:
            lines = "1 line" if account.skipped == 1 else f"{account.skipped} lines"
            message += f" ({lines} of its events cannot be read)"
        return RunRecord(
            plan=self.plan,
            fingerprint=self.plan.fingerprint,
            status=self.ending.status,
            started_at=started_at.isoformat(timespec="seconds"),
            seconds=seconds,
            environment=None,
            together=self._together,
            phases=account.costs,
            problem=Problem(
                kind=self.ending.kind, phase=account.phase, step=account.step, message=message
            ),
        )

    def store(self, record: RunRecord, good: RunRecord | None) -> RunRecord:
        """Write the record and make the attempt the result, unless ``good`` is a better one.

        Returns:
            The record as stored; where it could not be, its problem says so.
        """
        try:
            write_json(self.folder.record, record)
            self._publish(record, good)
        except StorageError as error:
            message = f"the record could not be written: {error.what}"
            problem = record.problem or Problem(kind="disk_full", phase=None, step=None, message="")
            whole = "; ".join(part for part in (problem.message, message) if part)
            problem = problem.model_copy(update={"message": whole})
            status = "failed" if record.status == "ok" else record.status
            return record.model_copy(update={"status": status, "problem": problem})
        return record

    def _publish(self, record: RunRecord, good: RunRecord | None) -> None:
        """Make the attempt, whose record is written, the result, unless ``good`` is a better one.

        Raises:
            StorageError: the folder cannot be written.
        """
        if good is None or record.status == "ok":
            self._result.publish(whole=record.status == "ok")

    def settle(self, good: RunRecord | None) -> None:
        """Give an attempt that nobody watches over any more its record, and publish it once.

        Raises:
            HarnessError: the folder cannot be written, or the child's record not be read.
            Timeout: the child still runs.
        """
        path = self.folder.record
        with FileLock(self.folder.lock, timeout=0):
            written = read_json(path, RunRecord) if path.is_file() else None
            record = self._cleaned(written or self._posthumous())
            if record != written:
                write_json(path, record)
        # A good attempt goes when it is published: one that is still here was cut short.
        if record.status == "ok" or not self._is_published():
            self._publish(record, good)

    def _is_published(self) -> bool:
        # The record is published last, so where it is, everything is.
        result = self._result.record
        return result.is_file() and result.read_bytes() == self.folder.record.read_bytes()


@dataclass(frozen=True)
class RunAccount:
    """What the events of a child say of its run; ``skipped`` counts lines that say nothing."""

    started_at: datetime | None
    seconds: float
    phase: PhaseName | None
    step: int | None
    costs: tuple[PhaseCost, ...]
    skipped: int


def read_account(path: Path) -> RunAccount:
    """Read the events of a child to their end."""
    tail = EventTail(path)
    events = list(tail.new())
    phase: PhaseName | None = None
    step: int | None = None
    for event in events:
        if isinstance(event, PhaseStarted):
            phase, step = event.phase, None
        elif isinstance(event, ValidationStarted):
            phase = "validate"
        elif isinstance(event, Validated):
            phase = "train"
        elif isinstance(event, Advanced) and phase == "train":
            step = min(event.done + 1, event.total)
    return RunAccount(
        started_at=datetime.fromtimestamp(events[0].time, UTC) if events else None,
        seconds=max(0.0, events[-1].clock - events[0].clock) if events else 0.0,
        phase=phase,
        step=step,
        costs=tuple(event.cost for event in events if isinstance(event, PhaseEnded)),
        skipped=tail.skipped,
    )
