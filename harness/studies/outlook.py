"""Outlook: what a study will need at least and at most, stage by stage, before it is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.spec.plan import Plan
from harness.studies.agenda import Agenda
from harness.studies.arms import Arm
from harness.studies.budget import Pace
from harness.studies.findings import Job
from harness.studies.search import rungs

Seconds = Callable[[Plan], float | None]
Bytes = Callable[[Plan], int | None]
Range = tuple[float, float]


@dataclass(frozen=True)
class Stage:
    """One stage of a study: runs at least and at most, those done, and what they cost.

    Seconds and joules are of all its runs, those done included, at least and at most; None where
    a variant's are not known. ``memory`` is what the largest of its runs needs of a device.
    """

    name: str
    runs: tuple[int, int]
    done: int
    seconds: Range | None
    joules: Range | None
    memory: int | None


def outlook(agenda: Agenda, seconds: Seconds, memory: Bytes) -> list[Stage]:
    """The stages of a study, in order.

    Args:
        agenda: how it stands.
        seconds: how long a variant's run will take, where none of this study tells.
        memory: bytes that a run needs of its device, None where that is not known.
    """
    return _Outlook(agenda, seconds, memory).stages()


def seconds_left(agenda: Agenda) -> Range | None:
    """Seconds of run time to come, at least and at most; None while a variant's is not known."""
    if not agenda.jobs:
        return 0.0, 0.0
    stages = outlook(agenda, lambda _: None, lambda _: None)
    known = [stage.seconds for stage in stages if stage.seconds is not None]
    if len(known) < len(stages):
        return None
    spent = agenda.spent.seconds
    least, most = (max(sum(found[end] for found in known) - spent, 0.0) for end in (0, 1))
    return least, most


@dataclass(frozen=True)
class _Need:
    """What a stage asks of one variant: runs at least and at most, and whole budgets."""

    runs: tuple[int, int]
    budgets: Range


class _Outlook:
    """Asks for every variant's time and memory once."""

    def __init__(self, agenda: Agenda, seconds: Seconds, memory: Bytes) -> None:
        self._agenda = agenda
        self._study = agenda.comparison.study
        self._arms = agenda.comparison.arms
        self._pace = Pace.of(agenda.settled)
        self._seconds = {arm.label: seconds(arm.plan) for arm in self._arms}
        self._memory = {arm.label: memory(arm.plan) for arm in self._arms}

    def stages(self) -> list[Stage]:
        tuned = self._study.tune.trials > 1 and any(arm.trains for arm in self._arms)
        found = [self._stage("default settings", self._at_default)]
        if tuned:
            found = [self._stage("tuning", self._search), *found]
            found.append(self._stage("best settings", self._at_best))
        return found

    def _search(self, arm: Arm) -> _Need:
        tune = self._study.tune
        if not arm.trains:
            return _need(0, 0)
        steps = rungs(tune)
        more = tune.widenings
        runs = sum(count for _, count in steps)
        budgets = sum(share * count for share, count in steps)
        return _Need((runs, runs + more), (budgets, budgets + more))

    def _at_default(self, arm: Arm) -> _Need:
        seeds = self._study.seeds
        return _need(seeds.first, seeds.last) if arm.trains else _need(1, 1)

    def _at_best(self, arm: Arm) -> _Need:
        """None where the best rate is the default one, whose runs there are."""
        seeds, best = self._study.seeds, self._agenda.searches[arm.label].best
        if not arm.trains or best == arm.default:
            return _need(0, 0)
        return _need(0 if best is None else seeds.first, seeds.last)

    def _stage(self, name: str, need: Callable[[Arm], _Need]) -> Stage:
        needs = {arm.label: need(arm) for arm in self._arms}
        wanted = [label for label, found in needs.items() if found.runs[1]]
        kind = "tune" if name == "tuning" else "verdict"
        costs = {label: self._pace.of_arm(label, kind) for label in wanted}
        seconds = {label: costs[label][0] or self._seconds[label] for label in wanted}
        joules = {label: costs[label][1] for label in wanted}
        memory = [self._memory[label] for label in wanted]
        known = [size for size in memory if size is not None]
        return Stage(
            name=name,
            runs=(
                sum(needs[label].runs[0] for label in wanted),
                sum(needs[label].runs[1] for label in wanted),
            ),
            done=sum(self._is_of(job, name) for job in self._agenda.settled),
            seconds=_total(needs, seconds),
            joules=_total(needs, joules),
            memory=max(known) if len(known) == len(memory) and known else None,
        )

    def _is_of(self, job: Job, name: str) -> bool:
        if job.stage == "tune":
            return name == "tuning"
        default = job.rate == self._agenda.comparison.by_label[job.arm].default
        return name == ("default settings" if default else "best settings")


def _need(least: int, most: int) -> _Need:
    return _Need((least, most), (float(least), float(most)))


def _total(needs: Mapping[str, _Need], each: Mapping[str, float | None]) -> Range | None:
    """At least and at most, all variants together; None where one of them is not known."""
    least = most = 0.0
    for label, cost in each.items():
        if cost is None:
            return None
        least += needs[label].budgets[0] * cost
        most += needs[label].budgets[1] * cost
    return least, most
