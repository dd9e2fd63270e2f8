"""Supervise: one plan at a time becomes a record, whatever happens on the way."""

from __future__ import annotations

from contextlib import suppress

from filelock import FileLock, Timeout

from harness.errors import HarnessError, UserError
from harness.origin import RESULT_ROOMS, sources_digest
from harness.records.events import Hear
from harness.records.record import RunRecord
from harness.records.store import RunStore
from harness.runs.attempt import Attempt
from harness.runs.ending import STOPPED
from harness.runs.lock import held
from harness.runs.options import DEFAULT_OPTIONS, RunOptions
from harness.runs.process import tell
from harness.runs.stop import Stop
from harness.spec.plan import Plan, Substitution


class Interrupted(KeyboardInterrupt):
    """A run was interrupted, and its record is in the store."""

    def __init__(self, record: RunRecord) -> None:
        """Say why, as the record does."""
        super().__init__("" if record.problem is None else record.problem.message)
        self.record = record


def supervise(
    plan: Plan,
    store: RunStore,
    hear: Hear,
    options: RunOptions = DEFAULT_OPTIONS,
    stop: Stop | None = None,
) -> RunRecord:
    """Run ``plan`` in a child process, unless an equal plan has already been run well.

    ``hear`` is called with every event of the child, and with notes of the supervisor's own.
    An attempt that was cut short is resumed. The record is in the store when this returns,
    unless the disk is full: then its problem says so. With ``on_oom = "shrink"`` the record
    returned may be that of a smaller plan, stored under that plan beside the one that did not fit.

    Raises:
        UserError: the model needs to run code of its own and ``options`` does not allow it.
        StorageError: the run folder cannot be used, or (without ``options.wait``) another process
            is working in it.
        Interrupted: after the child has been stopped and its record written. A run that ends
            because of ``stop`` is no error: its record says that it was interrupted.
        CancelledError: ``stop`` was asked for before the run could begin.
    """
    if plan.model.trust_remote_code and not options.trust_remote_code:
        raise UserError(
            f"{plan.model.name} needs to run code from its repository",
            where="trust_remote_code in the model's file",
            hint="--trust-remote-code allows it, if you have read that code and trust it",
        )
    stop = stop or Stop()
    record = _run(plan, store, hear, options, stop)
    while options.on_oom == "shrink" and not stop.asked:
        smaller = shrunk(record)
        if smaller is None:
            break
        tried, size = record.plan.training.micro_batch_size, smaller.training.micro_batch_size
        tell(hear, f"a micro-batch of {tried} does not fit into memory: trying {size}")
        record = _run(smaller, store, hear, options, stop)
    return record


def _used_again(known: RunRecord) -> str:
    text = f"already run on {known.started_at[:10]}: using that result"
    made_by = None if known.environment is None else known.environment.sources
    if made_by in (None, sources_digest(*RESULT_ROOMS)):
        return text
    return f"{text}, which another version of the harness made (--force runs it again)"


def _run(plan: Plan, store: RunStore, hear: Hear, options: RunOptions, stop: Stop) -> RunRecord:
    known = store.find(plan)
    if known is not None and makes_running_unnecessary(known, options):
        tell(hear, _used_again(known))
        return known
    folder = store.folder(plan)
    with held(folder, hear, stop, wait=options.wait):
        known = store.find(plan)  # another process may have run it meanwhile
        if known is not None and makes_running_unnecessary(known, options):
            return known
        attempt = Attempt(plan, folder)
        record = attempt.carry_out(options, hear, stop)
        record = attempt.store(record, _good(known))
    if attempt.ending.kind == STOPPED["interrupted"].kind and not stop.asked:
        raise Interrupted(record)
    return record


def makes_running_unnecessary(known: RunRecord, options: RunOptions) -> bool:
    """Whether the record is a good one, or an OOM that will be shrunk."""
    if options.force:
        return False
    return known.status == "ok" or (options.on_oom == "shrink" and shrunk(known) is not None)


def _good(known: RunRecord | None) -> RunRecord | None:
    return known if known is not None and known.status == "ok" else None


def shrunk(record: RunRecord) -> Plan | None:
    """The plan with half the micro-batch, if that may help: training ran out of memory."""
    plan, problem = record.plan, record.problem
    micro = plan.training.micro_batch_size
    if record.status != "oom" or problem is None or problem.phase != "train" or micro < 2:
        return None
    rows = plan.device_rows
    used = max(size for size in range(1, micro // 2 + 1) if rows % size == 0)
    key = "training.micro_batch_size"
    earlier = [item for item in plan.substitutions if item.key == key]
    found = Substitution(
        key=key,
        asked=earlier[0].asked if earlier else micro,
        used=used,
        reason=f"a micro-batch of {micro} did not fit into memory ({problem.kind})",
    )
    others = [item for item in plan.substitutions if item.key != key]
    training = plan.training.model_copy(update={"micro_batch_size": used})
    return plan.model_copy(update={"training": training, "substitutions": (*others, found)})


def settle(store: RunStore, suite: str | None = None) -> None:
    """Give a record to every attempt whose process and parent are gone without one."""
    for folder in list(store.attempts(suite)):
        with suppress(HarnessError, OSError, Timeout), FileLock(folder.lock, timeout=0):
            attempt = Attempt.left_in(folder)
            attempt.settle(_good(store.find(attempt.plan)))
