"""Supervise: one plan at a time from an order to a record, whatever happens on the way."""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

from filelock import FileLock, Timeout

from harness.errors import HarnessError, StorageError, UserError
from harness.records.events import read_events
from harness.records.record import PhaseCost, Problem, RunRecord
from harness.records.store import RunFolder, RunStore
from harness.runs.ending import Death, Ending, abandoned, ending_of_process, without_secrets
from harness.runs.lock import held
from harness.runs.process import Watch, run_process, tell
from harness.spec.plan import Plan, Substitution
from harness.spec.schema import parse, read_json, write_json

LEFTOVER_SECONDS = 60.0
LOG_TAIL_BYTES = 2_000


@dataclass(frozen=True)
class Order:
    """How to treat a plan.

    ``force`` runs it although a good record exists, from the beginning, and takes over nothing
    that was found out before this order, whose ``name`` marks what is. ``on_oom = "shrink"``
    tries again with half the micro-batch (and twice the accumulation) until a step fits. ``wait``
    says what to do while another process runs the same plan: wait for it, or raise.
    """

    force: bool = False
    timeout_seconds: float | None = None
    on_oom: Literal["record", "shrink"] = "record"
    wait: bool = True
    trust_remote_code: bool = False
    checkpoint_seconds: float = 20.0
    name: str = field(default_factory=lambda: uuid4().hex)


ORDER = Order()


def supervise(plan: Plan, store: RunStore, watch: Watch, order: Order = ORDER) -> RunRecord:
    """Run ``plan`` in a child process, unless an equal plan has already been run well.

    ``watch`` is called with every event of the child, and with notes of the supervisor's own.
    An attempt that was cut short is gone on from. The record is in the store when this returns,
    unless the disk is full: then its problem says so. With ``on_oom = "shrink"`` the record
    returned may be that of a smaller plan, stored under that plan beside the one that did not fit.

    Raises:
        UserError: the model wants to run code of its own and ``order`` does not allow it.
        StorageError: the run folder cannot be used, or (without ``order.wait``) another process
            is working in it.
        KeyboardInterrupt: after the child has been stopped and its record written.
    """
    if plan.model.trust_remote_code and not order.trust_remote_code:
        raise UserError(
            f"{plan.model.name} wants to run code that comes with its weights",
            where="trust_remote_code in the model's file",
            hint="--trust-remote-code allows it, if you have read that code and trust it",
        )
    record = _run(plan, store, watch, order)
    while order.on_oom == "shrink":
        smaller = shrunk(record)
        if smaller is None:
            break
        tried, size = record.plan.training.micro_batch_size, smaller.training.micro_batch_size
        tell(watch, f"a micro-batch of {tried} does not fit into memory: trying {size}")
        record = _run(smaller, store, watch, order)
    return record


def shrunk(record: RunRecord) -> Plan | None:
    """The plan with half the micro-batch, if that may help: training ran out of memory."""
    plan, problem = record.plan, record.problem
    micro = plan.training.micro_batch_size
    if record.status != "oom" or problem is None or problem.phase != "train" or micro < 2:
        return None
    batch = plan.budget.batch_size
    used = max(size for size in range(1, micro // 2 + 1) if batch % size == 0)
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
            with FileLock(folder.attempt.lock, timeout=0):
                record = _left_by(folder)
            # A good attempt goes when it is published: one that is still here was cut short.
            if record.status == "ok" or not _is_published(folder):
                _publish(folder, _good(store, record.plan))


def _left_by(folder: RunFolder) -> RunRecord:
    """The record of an attempt that nobody watches over any more, as fit to be published."""
    attempt = folder.attempt
    written = read_json(attempt.record, RunRecord) if attempt.record.is_file() else None
    plan = read_json(attempt.plan, Plan)
    record = _with_log_tail(written or _posthumous(plan, folder, abandoned()), attempt)
    if record != written:
        write_json(attempt.record, record)
    return record


def _is_published(folder: RunFolder) -> bool:
    # The record is published last, so where it is, everything is.
    result = folder.record
    return result.is_file() and result.read_bytes() == folder.attempt.record.read_bytes()


def _run(plan: Plan, store: RunStore, watch: Watch, order: Order) -> RunRecord:
    known = _reusable(plan, store, order)
    if known is not None:
        tell(watch, f"already run on {known.started_at[:10]}: the record is used again")
        return known
    folder = store.folder(plan)
    with held(folder, watch, wait=order.wait) as waited:
        known = _reusable(plan, store, order) if waited else None
        return known or _attempt(plan, store, watch, order)


def _reusable(plan: Plan, store: RunStore, order: Order) -> RunRecord | None:
    """A record that makes running unnecessary: a good one, or an OOM that will be shrunk."""
    known = None if order.force else store.find(plan)
    if known is None or known.status == "ok":
        return known
    return known if order.on_oom == "shrink" and shrunk(known) is not None else None


def _good(store: RunStore, plan: Plan) -> RunRecord | None:
    known = store.find(plan)
    return known if known is not None and known.status == "ok" else None


def _attempt(plan: Plan, store: RunStore, watch: Watch, order: Order) -> RunRecord:
    """Run the child and leave its record; the caller holds the lock."""
    folder = store.folder(plan)
    started, clock = datetime.now(UTC), time.monotonic()
    command = _command(folder, order)
    good = _good(store, plan)
    try:
        _prepare(plan, folder, anew=order.force)
        death = run_process(command, folder.attempt, watch, order.timeout_seconds)
    except OSError as error:
        raise StorageError(
            f"cannot use the run folder: {error.strerror}", where=folder.path
        ) from error
    record = _record_of(plan, folder, death)
    if record.seconds == 0:
        times = {
            "seconds": time.monotonic() - clock,
            "started_at": started.isoformat(timespec="seconds"),
        }
        record = record.model_copy(update=times)
    record = _stored(record, folder, good)
    if death.interrupted:
        raise KeyboardInterrupt
    return record


def _command(folder: RunFolder, order: Order) -> list[str]:
    command = [sys.executable, "-m", "harness.runs.child", str(folder.attempt.path)]
    command += ["--checkpoint-seconds", str(order.checkpoint_seconds)]
    command += ["--anew", order.name] if order.force else []
    return command + ["--trust-remote-code"] * order.trust_remote_code


def _prepare(plan: Plan, folder: RunFolder, *, anew: bool) -> None:
    """Empty the attempt's folder, but for what a run of this very plan can go on from.

    Raises:
        OSError: the folder cannot be written.
        StorageError: likewise, or a child of an earlier attempt does not end.
    """
    attempt = folder.attempt
    attempt.path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(attempt.lock, timeout=LEFTOVER_SECONDS):
            if anew or not _goes_on(plan, attempt):
                shutil.rmtree(attempt.path)
            for stale in (attempt.record, attempt.events, attempt.log):
                stale.unlink(missing_ok=True)
    except Timeout:
        raise StorageError(
            "a process of an earlier attempt has not ended", where=attempt.path
        ) from None
    write_json(attempt.plan, plan)


def _goes_on(plan: Plan, attempt: RunFolder) -> bool:
    try:
        return read_json(attempt.plan, Plan).fingerprint == plan.fingerprint
    except HarnessError:
        return False


def _record_of(plan: Plan, folder: RunFolder, death: Death) -> RunRecord:
    """The child's own record, or one made from what it left behind."""
    ending = ending_of_process(death, _log_tail(folder.attempt))
    try:
        record = read_json(folder.attempt.record, RunRecord)
    except HarnessError:
        return _posthumous(plan, folder, ending)
    stopped = death.timed_out or death.interrupted
    if stopped and record.problem is not None:  # whatever error the signal became in a library
        problem = {"kind": ending.kind, "message": ending.message}
        update = {"status": ending.status, "problem": record.problem.model_copy(update=problem)}
        return record.model_copy(update=update)
    return record


def _stored(record: RunRecord, folder: RunFolder, good: RunRecord | None) -> RunRecord:
    """Store the record and return it as stored."""
    record = _with_log_tail(record, folder.attempt)
    try:
        write_json(folder.attempt.record, record)
        _publish(folder, good)
    except StorageError as error:
        message = f"the record could not be written: {error.what}"
        problem = record.problem or Problem(kind="disk_full", phase=None, step=None, message="")
        whole = "; ".join(part for part in (problem.message, message) if part)
        problem = problem.model_copy(update={"message": whole})
        status = "failed" if record.status == "ok" else record.status
        return record.model_copy(update={"status": status, "problem": problem})
    return record


def _publish(folder: RunFolder, good: RunRecord | None) -> None:
    """Make the attempt the result, unless it ended worse than an earlier one."""
    if good is None or read_json(folder.attempt.record, RunRecord).status == "ok":
        folder.publish()


def _posthumous(plan: Plan, folder: RunFolder, ending: Ending) -> RunRecord:
    """The record of a child that died without leaving one, from its events."""
    phase, step, phases = None, None, []
    first = last = 0.0
    for event in read_events(folder.attempt.events):
        first, last = first or event["time"], event["time"]
        if event["kind"] == "phase_start":
            phase, step = event["phase"], None
        elif event["kind"] == "progress" and phase == "train":
            step = min(event["done"] + 1, event["total"])
        elif event["kind"] == "phase_end":
            phases.append(parse(PhaseCost, event["cost"], where=folder.attempt.events))
    return RunRecord(
        plan=plan,
        fingerprint=plan.fingerprint,
        status=ending.status,
        started_at=datetime.fromtimestamp(first, UTC).isoformat(timespec="seconds"),
        seconds=last - first,
        environment=None,
        phases=tuple(phases),
        problem=Problem(kind=ending.kind, phase=phase, step=step, message=ending.message),
    )


def _with_log_tail(record: RunRecord, attempt: RunFolder) -> RunRecord:
    if record.problem is None:
        return record
    clean = {
        "message": without_secrets(record.problem.message),
        "log_tail": without_secrets(_log_tail(attempt)),
    }
    return record.model_copy(update={"problem": record.problem.model_copy(update=clean)})


def _log_tail(attempt: RunFolder) -> str:
    try:
        with attempt.log.open("rb") as file:
            file.seek(max(0, attempt.log.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
