"""Under way: what the runs of a study are doing now, read from their events by anybody."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from harness.records.events import Advanced, EventTail, PhaseEnded, PhaseStarted
from harness.records.store import RunStore
from harness.studies.agenda import Agenda
from harness.studies.findings import Job

SILENCE_SECONDS = 60.0  # a run says every second that it lives


@dataclass(frozen=True)
class UnderWay:
    """A run that somebody is carrying out: its phase, how far that is, and the last loss."""

    job: Job
    phase: str
    done: int
    total: int
    loss: float | None


def under_way(agenda: Agenda, store: RunStore) -> Iterator[UnderWay]:
    """Runs that are wanted and have said something in the last minute, in the agenda's order."""
    now = time.time()
    for job in agenda.jobs:
        events = store.folder(job.plan).attempt.events
        try:
            age = now - events.stat().st_mtime
        except OSError:
            continue
        if age <= SILENCE_SECONDS:
            yield _look(job, EventTail(events))


def _look(job: Job, tail: EventTail) -> UnderWay:
    phase, done, total, loss = "starting", 0, 0, None
    for event in tail.new():
        if isinstance(event, PhaseStarted):
            phase, done, total = event.phase, 0, 0
        elif isinstance(event, PhaseEnded):
            phase, done, total = f"{event.cost.name} done", 0, 0
        elif isinstance(event, Advanced):
            done, total = event.done, event.total
            loss = event.numbers.get("loss", loss)
    return UnderWay(job, phase, done, total, loss)
