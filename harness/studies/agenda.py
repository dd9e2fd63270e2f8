"""Agenda: what a study has found so far and which runs come next, a pure function of records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from harness.errors import UserError
from harness.records.record import RunRecord, Score
from harness.records.store import StoredRun
from harness.report.figures.canvas import Mark
from harness.report.pairing import KeptItems, Reading, ScoreKey, read_items
from harness.report.rows import Row
from harness.report.sample import Scale, make_scale
from harness.spec.plan import Plan
from harness.spec.study import Study
from harness.studies.arms import Arm, StudyArms, verdict_job
from harness.studies.budget import Spent, covers, spent_on, within
from harness.studies.family import Family
from harness.studies.findings import Job
from harness.studies.looks import FAR, Conclusion, Following, follow
from harness.studies.rules import Rules
from harness.studies.search import Find, Search
from harness.studies.steering import Steering
from harness.studies.tuning import most_trials, search

Setting = Literal["default", "best"]
PERPLEXITY = ("held_out", "perplexity")


@dataclass(frozen=True)
class Standing:
    """All arms in one setting: their learning rates, and where the comparisons stand.

    An arm that was dropped before it was tuned has no best rate. ``failed`` holds the seeds of
    the settled runs that did not end well.
    """

    setting: Setting
    key: ScoreKey
    scale: Scale | None
    rates: dict[str, float]
    runs: dict[str, tuple[StoredRun, ...]]
    following: Following
    failed: dict[str, tuple[int, ...]]

    def conclusion(self, label: str) -> Conclusion | None:
        """What is known of an arm; None before the first look, and of the reference."""
        return self.following.conclusions.get(label)


@dataclass(frozen=True)
class Agenda:
    """A study as it stands. ``jobs`` are all runs that can be started now, in a good order.

    ``settled`` are the runs that all of this is made from. ``stopped`` says why nothing more is
    planned although something is open: the budget. ``has_room`` says that the budget is surely
    enough for all that the study can ask for. ``begun`` are the seconds of runs that were ended
    before they were whole, where the budget has hours.
    """

    comparison: StudyArms
    searches: dict[str, Search]
    standings: dict[Setting, Standing]
    jobs: tuple[Job, ...]
    settled: dict[Job, StoredRun]
    spent: Spent
    stopped: str = ""
    has_room: bool = True
    begun: dict[Job, float] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether no run is left to be started."""
        return not self.jobs

    @property
    def main(self) -> Standing | None:
        """The setting that answers the question: the best one, where anything is tuned."""
        return self.standings.get("best") or self.standings.get("default")


def next_plans(
    comparison: StudyArms,
    find: Find,
    steering: Steering = Steering(),  # noqa: B008 - it is immutable
    begun: Callable[[Job], float] = lambda _: 0.0,
) -> Agenda:
    """Where the study stands and what to run next, from its file, records and decisions alone.

    Drivers that are killed, run at once, or hold a part of the records each, agree for that
    reason. ``begun`` tells the seconds spent on a job that is not settled: a budget in hours
    counts them.
    """
    return _Planner(comparison, find, steering, begun).agenda()


class _Planner:
    """Looks every job up once, and remembers what it saw for the account of costs."""

    def __init__(
        self,
        comparison: StudyArms,
        find: Find,
        steering: Steering,
        begun: Callable[[Job], float],
    ) -> None:
        self._comparison, self._begun = comparison, begun
        self._study = comparison.study
        self._lookup = find
        self._rules = Rules.of(self._study.seeds, self._study.alpha, steering.decisions)
        self._dropped = steering.dropped - {comparison.reference}  # which all others need
        self._settled: dict[Job, StoredRun] = {}
        self._missing: dict[Job, None] = {}

    def _find(self, job: Job) -> StoredRun | None:
        found = self._lookup(job)
        if found is not None:
            self._settled[job] = found
        return found

    def _want(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self._missing.setdefault(job)

    def agenda(self) -> Agenda:
        searches = {
            arm.label: search(arm, self._study.tune, self._find) for arm in self._comparison.arms
        }
        kept = {k: v for k, v in searches.items() if k not in self._dropped}
        for trials in in_turns([found.missing for found in kept.values()]):
            self._want(trials)
        standings: dict[Setting, Standing] = {}
        defaults = {arm.label: arm.default for arm in self._comparison.arms}
        standings["default"] = self._stand("default", defaults)
        best = {label: found.best for label, found in searches.items() if found.best is not None}
        has_room = self._has_room()
        if self._study.tune.trials > 1 and best.keys() >= kept.keys():
            standings["best"] = self._stand("best", best)
        elif self._study.tune.trials > 1:
            ahead = self._ahead({label: rate for label, rate in best.items() if label in kept})
            self._want(ahead if has_room else ())
        budget, missing = self._study.budget, tuple(self._missing)
        told = ((job, self._begun(job)) for job in missing if budget.hours is not None)
        begun = {job: seconds for job, seconds in told if seconds}
        spent = spent_on(self._settled, sum(begun.values()))
        jobs, stopped = within(budget, missing, self._settled, begun)
        return Agenda(
            self._comparison,
            searches,
            standings,
            jobs,
            self._settled,
            spent,
            stopped,
            has_room,
            begun,
        )

    def _has_room(self) -> bool:
        """Whether the budget covers the most that may be asked for.

        Where it does not, the order in which runs are asked for decides which of them are made,
        so it must not depend on which run ends first.
        """
        settings = 2 if self._study.tune.trials > 1 else 1
        seeds = settings * self._rules.planned.last
        most = sum(
            most_trials(arm, self._study.tune) + (seeds if arm.trains else 1)
            for arm in self._comparison.arms
        )
        return covers(self._study.budget, most)

    def _ahead(self, best: dict[str, float]) -> list[Job]:
        """What the first look at the best rates lacks of the arms that are tuned already.

        The look itself judges all arms together, and waits for the others.
        """
        jobs = []
        for label, rate in best.items():
            arm = self._comparison.by_label[label]
            seeds = range(self._study.seeds.first if arm.trains else 1)
            jobs += [verdict_job(arm, rate, seed) for seed in seeds]
        return [job for job in jobs if self._find(job) is None]

    def _stand(self, setting: Setting, rates: dict[str, float]) -> Standing:
        """Replay the looks of one setting; what they lack is wanted."""
        arms, last = self._comparison.by_label, self._rules.planned.last
        runs: dict[str, tuple[StoredRun, ...]] = {}
        failed: dict[str, tuple[int, ...]] = {}
        ready: dict[str, int] = {}
        for label, arm in arms.items():
            rate = rates.get(label)
            settled = [] if rate is None else self._consecutive(arm, rate, last)
            ready[label] = len(settled) if arm.trains else FAR * len(settled)
            runs[label] = tuple(run for run in settled if run.record.status == "ok")
            failed[label] = tuple(
                run.record.plan.seed for run in settled if run.record.status != "ok"
            )
        key = self._key(arms[self._comparison.reference].plan, runs)
        reference = self._comparison.reference
        first = runs[reference][:1]
        scale, reading = _read(runs, key, self._study.margin, first, self._comparison.items)
        following = self._follow(
            Family(reading.aligned, scale, reference, (), ready, self._dropped, reading.excluded)
        )
        for label, count in following.wanted.items():
            seeds = range(ready[label], count if arms[label].trains else 1)
            jobs = [verdict_job(arms[label], rates[label], seed) for seed in seeds]
            self._want(job for job in jobs if self._find(job) is None)
        return Standing(setting, key, scale, rates, runs, following, failed)

    def _follow(self, family: Family) -> Following:
        """Planned arms are one family; each decision to add some makes one of its own."""
        added = {
            label: self._rules.decided[number] for label, number in self._comparison.added.items()
        }
        compared = [
            arm.label for arm in self._comparison.arms if arm.label != self._comparison.reference
        ]
        family.labels = [label for label in compared if label not in added]
        found = follow(family, self._rules.planned)
        for number in sorted(set(added.values())):
            family.labels = [label for label in compared if added.get(label) == number]
            more = follow(family, self._rules.added[number])
            found.conclusions |= more.conclusions
            for label, count in more.wanted.items():
                found.wanted[label] = max(count, found.wanted.get(label, 0))
        return found

    def _consecutive(self, arm: Arm, rate: float, most: int) -> list[StoredRun]:
        """Settled runs of the first seeds, up to the first that is missing."""
        found = []
        for seed in range(most if arm.trains else 1):
            run = self._find(verdict_job(arm, rate, seed))
            if run is None:
                break
            found.append(run)
        return found

    def _key(self, plan: Plan, runs: dict[str, tuple[StoredRun, ...]]) -> ScoreKey:
        """The score that decides: the study's, the suite's, or perplexity."""
        wanted = self._study.primary or plan.score.primary
        if wanted is None:
            return ScoreKey(*PERPLEXITY, "training")
        keys = _keys(run.record for found in runs.values() for run in found)
        return next((key for key in keys if key.is_called(wanted)), ScoreKey.named(wanted))


def check_primary(study: Study, record: RunRecord) -> None:
    """Refuse to go on where a run for the verdict ended well without the score that decides.

    No other run of the study would take it either.

    Raises:
        UserError: with the scores that the run took.
    """
    wanted = study.primary or record.plan.score.primary
    if wanted is None or record.status != "ok" or record.plan.score.split != "held_out":
        return
    keys = _keys([record])
    if keys and not any(key.is_called(wanted) for key in keys):
        raise UserError(
            f"the score that decides, {wanted!r}, was not taken by this study's runs",
            where="primary",
            expected=f"one of {', '.join(f'{key.task} {key.metric}' for key in keys)}",
        )


def in_turns(queues: Sequence[Sequence[Job]]) -> Iterable[tuple[Job, ...]]:
    """The first of every queue, then the second of each, so that all arms are seen early."""
    for place in range(max(map(len, queues), default=0)):
        yield tuple(queue[place] for queue in queues if place < len(queue))


def _keys(records: Iterable[RunRecord]) -> list[ScoreKey]:
    return [ScoreKey(one.task, one.metric, one.precision) for one in _scores_after(records)]


def _scores_after(records: Iterable[RunRecord]) -> list[Score]:
    return [
        score
        for record in records
        for score in record.scores
        if score.stage == "after" and score.precision == "training"
    ]


def _read(
    runs: dict[str, tuple[StoredRun, ...]],
    key: ScoreKey,
    margin: float,
    first: tuple[StoredRun, ...],
    items: KeptItems,
) -> tuple[Scale | None, Reading]:
    """The items of all runs that ended well, by arm, and the scale to compare them on.

    A margin that is a share of a value is that of the ``first`` run of the reference: one that
    moved with every run would let a later run undo what an earlier look concluded.
    """
    rows = [Row(label, label, found, Mark(0, 0)) for label, found in runs.items() if found]
    scores = [score for row in rows for record in row.records if (score := key.find(record))]
    if not scores:
        return None, Reading()
    anchor = key.find(first[0].record) if first else None
    return make_scale(scores, margin, anchor), read_items(rows, key, items)
