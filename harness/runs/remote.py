"""Remote: runs in the tasks and jobs of a cluster, and who ended them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from filelock import FileLock, Timeout

from harness.errors import HarnessError
from harness.records.record import RunRecord
from harness.records.store import RunStore
from harness.runs.attempt import Attempt
from harness.runs.ending import ABANDONED, STOPPED, Ending, interrupted
from harness.runs.options import RunOptions
from harness.runs.stop import interrupts
from harness.runs.supervise import Interrupted, supervise
from harness.spec.plan import Plan
from harness.spec.storage import read_json


def supervise_remotely(plan: Plan, store: RunStore, options: RunOptions) -> RunRecord:
    """As `supervise`, in a task or job of a cluster, where no person presses Ctrl-C.

    A run that is interrupted is a record here too. It names the signal, since no more is known
    here; whoever has sent the plan puts the reason there (`because`, `explain`).

    Raises:
        HarnessError: the plan cannot be run at all.
        KeyboardInterrupt: the run had not begun.
    """
    with interrupts("SIGINT"):
        try:
            return supervise(plan, store, lambda _: None, options)
        except Interrupted as error:
            return error.record


def was_interrupted(record: RunRecord) -> bool:
    """Whether the run was asked to end."""
    problem = record.problem
    return problem is not None and problem.kind == STOPPED["interrupted"].kind


def because(record: RunRecord, end: Ending) -> RunRecord:
    """The record with ``end`` as what interrupted it; one of another ending as it is."""
    if record.problem is None or not was_interrupted(record):
        return record
    known = _of_interrupt(end)
    problem = record.problem.model_copy(update={"kind": known.kind, "message": known.message})
    return record.model_copy(update={"problem": problem})


def _of_interrupt(end: Ending) -> Ending:
    """The same of a run that wrote its record when it was told to end, whatever came after."""
    return end if end.status == "interrupted" else interrupted(end.message)


def explain(store: RunStore, plan: Plan, order: str, end: Ending) -> RunRecord | None:
    """Have the record of a run that ended in ``store`` say how, and make one where none was left.

    A record of another ending stays as it is.

    Returns:
        The record; None where no attempt is left that was made with options of the name ``order``,
        and where it cannot be used. One of another command stays as it is.
    """
    folder = store.folder(plan)
    with suppress(HarnessError, OSError, Timeout), FileLock(folder.lock, timeout=0):
        attempt = Attempt.left_in(folder)
        if read_json(attempt.folder.options, RunOptions).name != order:
            return None
        if not attempt.folder.record.is_file():
            message = f"{ABANDONED.message}: {end.message}"
            # Memory says something of the variant; a machine that was taken, nothing of the run.
            is_known = end.status == "oom" or end.machine_taken
            attempt.ending = end if is_known else replace(ABANDONED, message=message)
        elif was_interrupted(read_json(attempt.folder.record, RunRecord)):
            attempt.ending = _of_interrupt(end)
        known = store.find(plan)
        attempt.settle(known if known is not None and known.status == "ok" else None)
        return read_json(attempt.folder.record, RunRecord)
    return None
