"""Supervise together: plans that train as one, from their options to a record of each."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial

from harness.errors import StorageError
from harness.records.events import Event, EventTail
from harness.records.record import RunRecord
from harness.records.store import RunStore
from harness.runs.attempt import Attempt
from harness.runs.early_start import early_or_afresh
from harness.runs.lock import held
from harness.runs.options import DEFAULT_OPTIONS, RunOptions
from harness.runs.process import run_process, tell
from harness.runs.stop import Stop
from harness.runs.supervise import makes_running_unnecessary, supervise
from harness.spec.plan import Plan

HearOf = Callable[[Plan, Event], None]


def supervise_together(
    plans: Sequence[Plan],
    store: RunStore,
    hear: HearOf,
    options: RunOptions = DEFAULT_OPTIONS,
    stop: Stop | None = None,
) -> list[RunRecord]:
    """Records of ``plans``, in their order; those not yet run well train in one process.

    Where they do not fit into memory as one, or only one of them is left, each runs alone.

    Raises:
        as `harness.runs.supervise.supervise`.
    """
    stop = stop or Stop()
    left = [plan for plan in plans if not _is_done(plan, store, options)]
    found: dict[str, RunRecord] = {}
    if len(left) > 1:
        found = _carry_out(left, store, hear, options, stop)
    records = []
    for plan in plans:
        record = found.get(plan.fingerprint)
        if record is None or (record.status == "oom" and not stop.asked):
            if record is not None:
                tell(partial(hear, plan), "they do not fit into memory as one: running it alone")
            record = supervise(plan, store, partial(hear, plan), options, stop)
        records.append(record)
    return records


def _is_done(plan: Plan, store: RunStore, options: RunOptions) -> bool:
    known = store.find(plan)
    return known is not None and makes_running_unnecessary(known, options)


def _carry_out(
    plans: Sequence[Plan], store: RunStore, hear: HearOf, options: RunOptions, stop: Stop
) -> dict[str, RunRecord]:
    """Run them in one child; what another process has run meanwhile is left to that."""
    with ExitStack() as locks:
        for plan in sorted(plans, key=lambda one: one.fingerprint):  # all drivers in one order
            folder = store.folder(plan)
            locks.enter_context(held(folder, partial(hear, plan), stop, wait=options.wait))
        left = [plan for plan in plans if not _is_done(plan, store, options)]
        if len(left) < 2:
            return {}
        attempts = [Attempt(plan, store.folder(plan), together=len(left)) for plan in left]
        _run(attempts, hear, options, stop)
        known = {plan.fingerprint: store.find(plan) for plan in left}
        found = {}
        for attempt in attempts:
            earlier = known[attempt.plan.fingerprint]
            good = earlier if earlier is not None and earlier.status == "ok" else None
            found[attempt.plan.fingerprint] = attempt.store(attempt.record(), good)
        return found


def _run(attempts: Sequence[Attempt], hear: HearOf, options: RunOptions, stop: Stop) -> None:
    """Run one child for all attempts until it ends.

    Raises:
        StorageError: a folder cannot be used.
    """
    clock = time.monotonic()
    first, *others = attempts
    tails = [(attempt.plan, EventTail(attempt.folder.events)) for attempt in others]

    def pass_on() -> None:
        for plan, tail in tails:
            for event in tail.new():
                hear(plan, event)

    def hear_all(event: Event) -> None:  # the first one's process gives a sign every second
        hear(first.plan, event)
        pass_on()

    try:
        for attempt in attempts:
            attempt.prepare(options)
        start = early_or_afresh(*(attempt.folder for attempt in attempts))
        timeout = options.timeout_seconds  # of one run
        if timeout is not None:
            timeout *= len(attempts)
        ending = run_process(start, first.folder, hear_all, timeout, stop)
        pass_on()
    except OSError as error:
        raise StorageError(
            f"cannot use the run folder: {error.strerror}", where=first.folder.path
        ) from error
    for attempt in attempts:
        attempt.ended(ending, time.monotonic() - clock)
    for attempt in others:
        with suppress(OSError):
            shutil.copyfile(first.folder.log, attempt.folder.log)
