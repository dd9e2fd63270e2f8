"""Reach: how far a budget in hours takes a study, by what its runs take on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from harness import numbers
from harness.spec.plan import Plan
from harness.studies.agenda import Agenda
from harness.studies.budget import AGAIN, HOUR, Pace, said_hours
from harness.studies.outlook import Range, Seconds, Stage, outlook

ENDS = {
    "tuning": "it stops while it tunes, before any comparison is looked at",
    "default settings": "it stops before all comparisons are looked at",
    "best settings": "its answer is then that of the default settings",
}


@dataclass(frozen=True)
class Reach:
    """How far the hours take a study.

    ``runs`` is how many they buy, those done included, ``least`` how many the study needs at
    least and ``seconds`` what these and what all take. ``ends_in`` is the stage in which the
    hours are over, empty where the study may come to its end.
    """

    runs: int
    least: int
    seconds: Range
    ends_in: str

    @property
    def answers(self) -> bool:
        """Whether the first look at every comparison comes within the hours."""
        return self.ends_in in ("", "best settings")


def reach(agenda: Agenda, tell: Seconds) -> Reach | None:
    """How far the budget goes; None where it has no hours, or no time of a run is known.

    Args:
        agenda: how the study stands.
        tell: how long a variant's run takes, where none of this study tells. A variant of which
            nothing is known is taken to be like the others.
    """
    hours = agenda.comparison.study.budget.hours
    if hours is None:
        return None
    likely = _Likely(agenda, tell)
    stages = outlook(agenda, likely, lambda _: None)
    seconds = [stage.seconds for stage in stages if stage.seconds is not None]
    if len(seconds) < len(stages) or not sum(most for _, most in seconds):
        return None
    least = sum(stage.runs[0] for stage in stages)
    runs, ends_in = _walk(stages, HOUR * hours - _lost(agenda, likely))
    total = (sum(low for low, _ in seconds), sum(high for _, high in seconds))
    return Reach(min(runs, least), least, total, ends_in)


def _lost(agenda: Agenda, likely: Seconds) -> float:
    """Seconds of runs yet to go on that are no part of a whole run of the least.

    Going on takes a part of a run again, at least.
    """
    pace, first, lost = Pace.of(agenda.settled), agenda.comparison.study.seeds.first, 0.0
    for job, seconds in agenda.begun.items():
        arm = agenda.comparison.by_label[job.arm]
        whole = pace.of_arm(job.arm, job.stage)[0] or likely(arm.plan) or 0.0
        is_more = job.stage == "verdict" and job.seed >= first
        lost += max(seconds - (0.0 if is_more else (1 - AGAIN) * job.share * whole), 0.0)
    return lost


def _walk(stages: list[Stage], left: float) -> tuple[int, str]:
    """Runs of the least that fit, stage after stage, and the stage that does not fit whole."""
    runs = 0
    for stage in stages:
        seconds = stage.seconds[0] if stage.seconds else 0.0
        if seconds > left:
            return runs + int(stage.runs[0] * left / seconds), stage.name
        runs, left = runs + stage.runs[0], left - seconds
    return runs, ""


class _Likely:
    """What is told of a variant, else the mean of the variants of which something is known."""

    def __init__(self, agenda: Agenda, tell: Seconds) -> None:
        self._tell = tell
        arms = agenda.comparison.arms
        settled = [
            (job.arm, run.record.all_seconds / job.share) for job, run in agenda.settled.items()
        ]
        told = [(arm.label, tell(arm.plan)) for arm in arms]
        known = [(label, seconds) for label, seconds in (*settled, *told) if seconds is not None]
        trains = agenda.comparison.by_label
        self._mean: dict[bool, float] = {
            kind: fmean(found)
            for kind in (True, False)
            if (found := [s for label, s in known if trains[label].trains == kind])
        }

    def __call__(self, plan: Plan) -> float | None:
        found = self._tell(plan)
        return self._mean.get(plan.trains, self._mean.get(True)) if found is None else found


def said_least(agenda: Agenda, found: Reach | None) -> Iterator[str]:
    """What is known before any run: hours that are not even enough for training are too few.

    ``found`` is by the least that training takes.
    """
    budget = agenda.comparison.study.budget
    if found is None or not found.ends_in:
        return
    each, whole = (found.seconds[0] / found.least, found.seconds[0])
    yield (
        f"At most {found.runs:,} of at least {found.least:,} runs fit into {said_hours(budget)}: "
        f"{ENDS[found.ends_in]}. By arithmetic, training alone takes {numbers.duration(each)} a "
        f"run and {numbers.duration(whole)} in all, at the least."
    )
    if not agenda.comparison.study.claims:
        yield "With --claim NAME only what one claim compares is run."


def said_reach(agenda: Agenda, found: Reach | None) -> Iterator[str]:
    """What the hours buy, in sentences; nothing where the budget has none."""
    budget = agenda.comparison.study.budget
    if budget.hours is None:
        return
    hours = f"A budget of {said_hours(budget)}"
    if found is None:
        yield (
            f"{hours}: how much it buys is not known, since no run of this kind was made here. "
            "The first run tells; one that is under way when the hours are over ends and goes on "
            "from there with more."
        )
        return
    each = numbers.duration(found.seconds[0] / max(found.least, 1))
    least, most = map(numbers.duration, found.seconds)
    if found.ends_in:
        yield (
            f"{hours} buys about {found.runs:,} of at least {found.least:,} runs of {each} each: "
            f"{ENDS[found.ends_in]}. The study takes at least {least}."
        )
    elif found.seconds[1] > HOUR * budget.hours:
        early = f"{hours} is enough where comparisons are decided early"
        yield f"{early}: the study takes {least} to {most}."
    else:
        yield f"{hours} is enough: the study takes at most {most}."
