"""Account: what the runs of a round spend while they go on, and what their budget still allows."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records.events import Event, ProcessStarted, RunStarted
from harness.records.store import StoredRun
from harness.runs.listener import Listener, RunResult
from harness.spec.plan import Plan
from harness.studies.agenda import Agenda
from harness.studies.budget import Pace, budget_left
from harness.studies.findings import Findings, Job, is_settled


class Account(Listener):
    """Hears a round's runs and adds up their time, by their own clocks while they are under way.

    Where the study's budget has no hours, nothing is ever over. A run that an executor says
    nothing of until it has ended (Ray, SLURM) is counted then.
    """

    def __init__(
        self, agenda: Agenda, jobs: Sequence[Job], findings: Findings, together: int = 1
    ) -> None:
        """Begin with ``jobs``, of which up to ``together`` share a process and its time."""
        self._left = budget_left(agenda.comparison.study.budget, agenda.spent)
        self._settled = dict(agenda.settled) if self._left is not None else {}
        self._jobs: dict[int, Job] = {}
        self._begun: dict[Job, float] = {}
        self._findings, self._together = findings, together
        self._spans: dict[int, tuple[float, float]] = {}  # first and last event of runs under way
        self._used = 0.0
        self._outgrown = False
        self.add(jobs)

    def add(self, jobs: Sequence[Job]) -> None:
        """Count ``jobs`` among those of the round."""
        self._jobs |= {id(job.plan): job for job in jobs}
        if self._left is not None:
            self._begun |= {job: self._findings.begun(job) for job in jobs}

    def hear(self, plan: Plan, event: Event) -> None:
        """It goes on."""
        if isinstance(event, ProcessStarted):
            self._spans[id(plan)] = event.clock, event.clock
        elif id(plan) in self._spans and not isinstance(event, RunStarted):
            self._spans[id(plan)] = self._spans[id(plan)][0], event.clock

    def result(self, result: RunResult) -> None:
        """It has ended; whether all that is still to come fits is asked anew."""
        self._spans.pop(id(result.plan), None)
        job = self._jobs.pop(id(result.plan), None)
        if self._left is None or result.record is None or job is None:
            return
        self._used += result.record.seconds  # of this attempt: earlier ones were spent before
        if is_settled(result.record):  # one that goes on later says nothing of the pace
            self._settled[job] = StoredRun(self._findings.folder(job), result.record)
        self._outgrown = self._expected() > self._left - self._used

    @property
    def is_used_up(self) -> bool:
        """Whether the hours are over before all runs of the round have ended."""
        if self._left is None or not self._jobs:
            return False
        return self._used + self._under_way() >= self._left

    @property
    def is_outgrown(self) -> bool:
        """Whether the round holds more than fits, by what its runs took so far."""
        return self._outgrown

    def _under_way(self) -> float:
        shared = max(1, min(self._together, len(self._spans)))
        return sum(last - first for first, last in self._spans.values()) / shared

    def _expected(self) -> float:
        """Seconds that the runs of the round that have not ended needed when it began."""
        pace = Pace.of(self._settled)
        return sum(pace.more(job, self._begun[job]) for job in self._jobs.values())
