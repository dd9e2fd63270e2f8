"""Budget: what a study has spent, and which of the runs that it wants it may still afford."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from types import MappingProxyType

from harness import numbers
from harness.records.record import RunRecord
from harness.records.store import StoredRun
from harness.spec.study import Spending
from harness.studies.findings import Job

HOUR = 3600.0
AGAIN = 0.1  # of a run, at least, where it goes on: it is loaded again, and its last steps are lost
Settled = Mapping[Job, StoredRun]
Begun = Mapping[Job, float]  # seconds of runs that were ended before they were whole
NONE_BEGUN: Begun = MappingProxyType({})


@dataclass(frozen=True)
class Spent:
    """What the settled runs of a study have cost.

    ``joules`` is the energy of the ``measured`` runs; null where no run was measured. ``begun``
    are the seconds of runs that were ended before they were whole, and are yet to go on.
    """

    runs: int
    failed: int
    seconds: float
    joules: float | None
    measured: int = 0
    begun: float = 0.0


def spent_on(settled: Settled, begun: float = 0.0) -> Spent:
    """The cost of all settled runs, beside ``begun`` seconds of others."""
    records = [run.record for run in settled.values()]
    joules = [found for record in records if (found := energy_of(record)) is not None]
    return Spent(
        runs=len(records),
        failed=sum(record.status != "ok" for record in records),
        seconds=sum(record.all_seconds for record in records),
        joules=sum(joules) if joules else None,
        measured=len(joules),
        begun=begun,
    )


def budget_left(budget: Spending, spent: Spent) -> float | None:
    """Seconds of run time that a budget in hours still has; None where it has no hours."""
    return None if budget.hours is None else HOUR * budget.hours - spent.seconds - spent.begun


def energy_of(record: RunRecord) -> float | None:
    """Joules of a run; None unless all of its phases were measured."""
    known = [cost.energy_joules for cost in record.phases if cost.energy_joules is not None]
    return sum(known) if known and len(known) == len(record.phases) else None


def said_hours(budget: Spending) -> str:
    """``2 hours``; empty where the budget has none."""
    if budget.hours is None:
        return ""
    return f"{budget.hours:g} hour{'' if budget.hours == 1 else 's'}"


def within(
    budget: Spending, jobs: Sequence[Job], settled: Settled, begun: Begun = NONE_BEGUN
) -> tuple[tuple[Job, ...], str]:
    """The first of ``jobs`` that the budget still allows, and why there are none, if so.

    Hours are held by what runs of the same variant took so far. Those of runs that are ``begun``
    are spent, and such a run needs so much less. While nothing is known, one run of each variant
    is let in.
    """
    kept, stopped = tuple(jobs), ""
    if budget.runs is not None and len(kept) > budget.runs - len(settled):
        kept = kept[: max(budget.runs - len(settled), 0)]
        stopped = "" if kept else f"the budget of {budget.runs} runs is used up"
    left = budget_left(budget, spent_on(settled, sum(begun.values())))
    if left is not None and kept:
        first, kept = kept[0], _that_fit(kept, left, settled, begun)
        stopped = "" if kept else _no_room(budget, first, left, settled, begun.get(first, 0.0))
    return kept, stopped


def covers(budget: Spending, most: int) -> bool:
    """Whether the budget surely has room for so many runs; hours are never sure."""
    return budget.hours is None and (budget.runs is None or most <= budget.runs)


def _that_fit(
    jobs: Sequence[Job], seconds: float, settled: Settled, begun: Begun
) -> tuple[Job, ...]:
    if not settled:
        first = {job.arm: job for job in reversed(jobs)}
        return tuple(job for job in jobs if first[job.arm] is job) if seconds > 0 else ()
    pace = Pace.of(settled)
    kept = []
    for job in jobs:
        seconds -= pace.more(job, begun.get(job, 0.0))
        if seconds < 0:
            break
        kept.append(job)
    return tuple(kept)


def _no_room(budget: Spending, job: Job, left: float, settled: Settled, begun: float) -> str:
    """Why ``job`` is not begun."""
    hours = f"the budget of {said_hours(budget)}"
    if left <= 0:
        return f"{hours} is used up"
    expected = numbers.duration(Pace.of(settled).more(job, begun))
    more = " more" if begun else ""
    room = f"{numbers.duration(left)} are left, and {job.arm} takes about {expected}{more}"
    return f"{hours} has no room for a run ({room})"


@dataclass(frozen=True)
class Pace:
    """Mean seconds and joules of settled runs, by variant and stage, by variant, and of all."""

    _seconds: dict[tuple[str, ...], float] = field(default_factory=dict)
    _joules: dict[tuple[str, ...], float] = field(default_factory=dict)

    @classmethod
    def of(cls, settled: Settled) -> Pace:
        """The pace so far."""
        seconds: dict[tuple[str, ...], list[float]] = {}
        joules: dict[tuple[str, ...], list[float]] = {}
        for job, run in settled.items():
            energy = energy_of(run.record)
            for key in _keys(job.arm, job.stage, job.share):
                seconds.setdefault(key, []).append(run.record.all_seconds)
                if energy is not None:
                    joules.setdefault(key, []).append(energy)
        return cls(_means(seconds), _means(joules))

    def seconds(self, job: Job) -> float:
        """Expected seconds of a run, from those most like it."""
        found = _first(self._seconds, _keys(job.arm, job.stage, job.share))
        return 0.0 if found is None else found

    def more(self, job: Job, begun: float) -> float:
        """Expected seconds of a run that goes on after ``begun`` seconds, or begins where 0."""
        whole = self.seconds(job)
        return max(whole - begun, AGAIN * whole)

    def of_arm(self, arm: str, stage: str) -> tuple[float | None, float | None]:
        """Expected seconds and joules of a whole run of one variant; None where none was run."""
        keys = _keys(arm, stage, 1.0)[:-1]
        return _first(self._seconds, keys), _first(self._joules, keys)


def _keys(arm: str, stage: str, share: float) -> list[tuple[str, ...]]:
    """From the likest runs to the least like."""
    return [(arm, stage, f"{share:g}"), (arm,), ()]


def _means(found: Mapping[tuple[str, ...], Iterable[float]]) -> dict[tuple[str, ...], float]:
    return {key: fmean(values) for key, values in found.items()}


def _first(means: Mapping[tuple[str, ...], float], keys: Iterable[tuple[str, ...]]) -> float | None:
    return next((means[key] for key in keys if key in means), None)
