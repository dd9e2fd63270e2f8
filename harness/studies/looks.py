"""Looks: comparisons with the reference judged after every round of seeds, errors paid for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np

from harness.report.judging import Difference, Multiplicity, compare_all, make_difference
from harness.report.pairing import Aligned
from harness.report.sample import Scale, make_sample
from harness.report.statistics.effects import Effect
from harness.studies.error_spending import levels

FAR = 1000  # seeds that stand for any number of them
SMALLEST_LEVEL = 1e-8

Limit = Literal["", "items", "seeds", "failed", "reference", "dropped", "waiting"]
DECIDED = ("better", "worse", "equivalent")


@dataclass(frozen=True)
class Conclusion:
    """What is known of one arm against the reference.

    ``limit`` says what keeps an undecided comparison undecided: too few items, the number of
    seeds, runs that failed (its own or the reference's), a person's decision, or runs that are
    still to come. ``seeds`` are those at the look that is told; ``level`` is the error that this
    look may use for one arm.
    """

    label: str
    difference: Difference | None
    seeds: int
    level: float
    limit: Limit = ""
    more_items: float | None = None

    @property
    def decided(self) -> bool:
        """Whether it needs no more seeds to be told."""
        return self.difference is not None and self.difference.verdict in DECIDED


@dataclass
class Following:
    """Where a family of comparisons stands: conclusions, and the seeds that each arm needs next."""

    conclusions: dict[str, Conclusion] = field(default_factory=dict)
    wanted: dict[str, int] = field(default_factory=dict)
    looks: list[int] = field(default_factory=list)


Level = Callable[[int], tuple[float, float]]


@dataclass(frozen=True)
class Rule:
    """When to look and with which error: ``stretches`` of (seeds at each look, error of all)."""

    stretches: tuple[tuple[tuple[int, ...], float], ...]

    @property
    def last(self) -> int:
        """Seeds at the last look."""
        return self.stretches[-1][0][-1]

    def looks(self) -> Iterator[tuple[int, Level]]:
        """Seeds at each look, and its level and the last look's for one of so many arms."""
        for counts, alpha in self.stretches:
            for place, count in enumerate(counts):
                yield count, partial(_levels_of, counts, alpha, place)


def _levels_of(counts: tuple[int, ...], alpha: float, place: int, arms: int) -> tuple[float, float]:
    found = levels(alpha / arms, tuple(count / counts[-1] for count in counts))
    return found[place], found[-1]


def restrict(aligned: Aligned, seeds: Mapping[str, int]) -> Aligned:
    """The runs of some arms at their first seeds; arms that are not named stay out."""
    kept = [
        run
        for run, (label, seed) in enumerate(zip(aligned.labels, aligned.seeds, strict=True))
        if label in seeds and (not aligned.trains[run] or seed < seeds[label])
    ]
    return replace(
        aligned,
        labels=tuple(aligned.labels[run] for run in kept),
        seeds=tuple(aligned.seeds[run] for run in kept),
        trains=tuple(aligned.trains[run] for run in kept),
        numerator=np.ascontiguousarray(aligned.numerator[:, kept]),
        denominator=np.ascontiguousarray(aligned.denominator[:, kept]),
        answers=None if aligned.answers is None else aligned.answers[:, kept],
    )


@dataclass
class Family:
    """Comparisons with one reference that are read together, and how far their seeds are.

    ``ready`` counts the first seeds of each arm that have settled runs, the reference's too; an
    arm that is not trained is ready for any number. ``aligned`` holds the runs that ended well.
    """

    aligned: Aligned | None
    scale: Scale | None
    reference: str
    labels: Sequence[str]
    ready: Mapping[str, int]
    dropped: frozenset[str] = frozenset()


def follow(family: Family, rule: Rule) -> Following:
    """Replay all looks that the settled runs allow; what comes next is ``wanted``.

    At each look the arms that are still open share its error evenly; one that is decided leaves
    its part to the others (Holm's argument), and the looks share the error of the whole (Lan and
    DeMets), so that any wrong conclusion of the family, "equivalent" included, has at most the
    chance that the rule allows. Sources: Holm (1979); Maurer and Bretz, "Multiple testing in
    group sequential trials using graphical approaches" (2013).
    """
    return _Replay(family, rule).run()


class _Replay:
    """The looks of one family, one after the other."""

    def __init__(self, family: Family, rule: Rule) -> None:
        self._family = family
        self._rule = rule
        self._open = list(family.labels)
        self._seeds: dict[str, int] = {}
        self._found = Following()

    def run(self) -> Following:
        for count, level in self._rule.looks():
            if not self._open or self._waits(count):
                break
            self._look(count, level)
            self._found.looks.append(count)
        else:
            self._limit_all("seeds")
        return self._found

    def _waits(self, count: int) -> bool:
        """Whether runs for a look at ``count`` seeds are missing; says which."""
        family = self._family
        behind = [label for label in self._open if family.ready[label] < count]
        for label in [label for label in behind if label in family.dropped]:
            self._close(label, "dropped")
            behind.remove(label)
        if self._open and family.ready[family.reference] < count:
            behind.append(family.reference)
        self._found.wanted = dict.fromkeys(behind, count)
        for label in self._open if behind else ():
            self._close(label, "waiting", keep_open=True)
        return bool(behind)

    def _look(self, count: int, level: Level) -> None:
        self._seeds |= dict.fromkeys([*self._open, self._family.reference], count)
        effects = self._effects()
        for label in [label for label in self._open if label not in effects]:
            self._seeds.pop(label)
            self._close(label, self._why_no_effect(label))
        self._decide(effects, count, level)
        for label in list(self._open):
            self._close_what_seeds_cannot_decide(label, effects[label], level)

    def _why_no_effect(self, label: str) -> Limit:
        aligned = self._family.aligned
        finished = () if aligned is None else aligned.labels
        alone = label in finished and self._family.reference not in finished
        return "reference" if alone else "failed"

    def _effects(self) -> dict[str, Effect]:
        family = self._family
        if family.aligned is None or family.scale is None:
            return {}
        part = restrict(family.aligned, self._seeds)
        if not part.labels:
            return {}
        return compare_all(make_sample(part, family.scale), family.reference)

    def _decide(self, effects: Mapping[str, Effect], count: int, level: Level) -> None:
        """Decide one arm after the other, the clearest first, for as long as one can be."""
        decided = True
        while decided and self._open:
            decided = False
            alpha, _ = level(len(self._open))
            for label in list(self._open):
                self._conclude(label, effects[label], count, alpha)
                decided = decided or self._found.conclusions[label].decided
            self._open = [
                label for label in self._open if not self._found.conclusions[label].decided
            ]

    def _conclude(self, label: str, effect: Effect, count: int, alpha: float) -> None:
        assert self._family.scale is not None  # noqa: S101 - there is an effect
        alpha = max(alpha, SMALLEST_LEVEL)
        found = make_difference(
            label, effect, effect.p_value, self._family.scale, Multiplicity(1, alpha)
        )
        if alpha <= SMALLEST_LEVEL and not effect.obstacle:
            found = replace(found, verdict="undecided")
        self._found.conclusions[label] = Conclusion(label, found, count, alpha)

    def _close_what_seeds_cannot_decide(self, label: str, effect: Effect, level: Level) -> None:
        """Say at once where items, not seeds, keep a comparison open."""
        assert self._family.scale is not None  # noqa: S101 - there is an effect
        _, last = level(len(self._open))
        if effect.obstacle == "few items" or _is_limited_by_items(
            effect, self._family.scale.bound, last
        ):
            told = self._found.conclusions[label].difference
            needed = told.needed if told is not None else None
            self._close(label, "items", more_items=needed.more_items if needed else None)

    def _limit_all(self, limit: Limit) -> None:
        for label in list(self._open):
            self._close(label, limit)

    def _close(
        self,
        label: str,
        limit: Limit,
        *,
        more_items: float | None = None,
        keep_open: bool = False,
    ) -> None:
        found = self._found.conclusions.get(label) or Conclusion(label, None, 0, 0.0)
        self._found.conclusions[label] = replace(found, limit=limit, more_items=more_items)
        if not keep_open:
            self._open.remove(label)


def _is_limited_by_items(effect: Effect, margin: float, alpha: float) -> bool:
    """Whether not even any number of seeds would decide it at the last look.

    The estimate may still move by what the seeds so far leave open.
    """
    noise = effect.noise if effect.discordant is None else effect.discordant.noise
    if noise.seeds is None:
        return True
    if effect.obstacle:
        return False
    half = noise.scaled(effect.seeds / FAR, 1.0, FAR).half_width(alpha)
    moves = 2 * math.sqrt(noise.seeds)
    nearest, furthest = max(abs(effect.estimate) - moves, 0.0), abs(effect.estimate) + moves
    return furthest <= half and nearest + half >= margin
