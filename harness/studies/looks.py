"""Looks: comparisons with the reference judged after every round of seeds, errors paid for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from harness.report.judging import Difference, Multiplicity, compare_all, make_difference
from harness.report.sample import make_sample
from harness.report.statistics.effects import Effect
from harness.report.statistics.power import needed
from harness.studies.family import Family, restrict
from harness.studies.rules import Look, Rule

FAR = 1000  # seeds that stand for any number of them
SMALLEST_LEVEL = 1e-8

Limit = Literal[
    "", "items", "seeds", "failed", "excluded", "unpaired", "reference", "dropped", "waiting"
]
DECIDED = ("better", "worse", "equivalent")


@dataclass(frozen=True)
class Conclusion:
    """What is known of one arm against the reference.

    ``limit`` says what keeps an undecided comparison undecided: too few items, the number of
    seeds, runs that failed (its own or the reference's) or are left out, no seed at which both
    ended well, a person's decision, or runs that are still to come; ``why`` says more of runs
    that are left out. ``seeds`` are those at the look that is told; ``level`` is the error that
    this look may use for this arm.
    """

    label: str
    difference: Difference | None
    seeds: int
    level: float
    limit: Limit = ""
    more_items: float | None = None
    why: str = ""

    @property
    def decided(self) -> bool:
        """Whether it needs no more seeds to be told."""
        return self.difference is not None and self.difference.verdict in DECIDED

    @property
    def pairs(self) -> int:
        """How many seeds the difference is made of; 0 where no side was trained, or without one."""
        if self.difference is None or is_without_seeds(self.difference.worse_by):
            return 0
        return self.difference.worse_by.seeds


def is_without_seeds(effect: Effect) -> bool:
    """Whether no side was trained, so that no seed will ever change it."""
    return effect.noise.seeds is None and not effect.single


@dataclass
class Following:
    """Where a family of comparisons stands: conclusions, and the seeds that each arm needs next."""

    conclusions: dict[str, Conclusion] = field(default_factory=dict)
    wanted: dict[str, int] = field(default_factory=dict)
    looks: list[int] = field(default_factory=list)


def follow(family: Family, rule: Rule) -> Following:
    """Replay all looks that the settled runs allow; what comes next is ``wanted``.

    The chance of any wrong conclusion in the family, "equivalent" included, is at most the error
    ``alpha`` that the rule allows, whatever the truth about the arms. A conclusion is read off
    the interval of a look, so it is wrong only where that interval misses the truth. The levels
    of all looks of one arm together err with ``alpha / n``, where ``n`` counts the arms of the
    family (:func:`~harness.studies.error_spending.levels`). So all arms together err with at
    most ``alpha``, however they depend on each other: Bonferroni's inequality (Dunn, "Multiple
    comparisons among means", 1961).

    An arm that is decided or given up passes nothing on. Holm's method (1979) would, but it
    counts one null hypothesis an arm, and here each has two ("no difference", "a margin or
    more"): a right answer about one would free error that the other may still need.

    Where no side is trained, nothing changes from look to look: it is one test, at the whole of
    the arm's share.
    """
    return _Replay(family, rule).run()


class _Replay:
    """The looks of one family, one after the other; ``_open`` are judged at the next."""

    def __init__(self, family: Family, rule: Rule) -> None:
        self._family = family
        self._rule = rule
        self._open = list(family.labels)
        self._seeds: dict[str, int] = {}
        self._found = Following()

    def run(self) -> Following:
        for look in self._rule.looks():
            if not self._open or not self._hold(look):
                break
        else:
            self._limit_all()
        return self._found

    def _hold(self, look: Look) -> bool:
        """Judge at this look all that can be judged; False where runs for it are missing."""
        if self._waits(look.count):
            return False
        self._judge(look)
        self._found.looks.append(look.count)
        return True

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
            self._limit(label, "waiting")
        return bool(behind)

    def _judge(self, look: Look) -> None:
        self._seeds |= dict.fromkeys([*self._open, self._family.reference], look.count)
        effects = self._effects()
        for label in list(self._open):
            if label in effects:
                self._conclude(label, effects[label], look)
            else:
                self._without_effect(label, look.count)

    def _without_effect(self, label: str, count: int) -> None:
        """Close what cannot be compared; where only a common seed is missing, one may come."""
        family = self._family
        own, other = (family.seeds(name, count) for name in (label, family.reference))
        self._limit(label, "unpaired")
        if own or own is None:
            if other is not None and not other:
                self._close(label, "reference", family.excluded.get(family.reference, ""))
            return
        why = family.excluded.get(label, "")
        self._close(label, "excluded" if why else "failed", why)

    def _effects(self) -> dict[str, Effect]:
        family = self._family
        if family.aligned is None or family.scale is None:
            return {}
        part = restrict(family.aligned, self._seeds)
        if not part.labels:
            return {}
        return compare_all(make_sample(part, family.scale), family.reference)

    def _levels(self, label: str, effect: Effect, look: Look) -> tuple[float, float]:
        """Error that an arm may use at ``look``, and at the last of its stretch."""
        arms = len(self._family.labels)
        if is_without_seeds(effect):
            return look.once / arms, look.once / arms
        pairs = [self._family.pairs(label, count) for count in look.counts_so_far]
        return look.levels(arms, pairs)

    def _conclude(self, label: str, effect: Effect, look: Look) -> None:
        """Judge an arm; one that is decided, or that items limit, gets no more seeds."""
        scale = self._family.scale
        assert scale is not None  # noqa: S101 - there is an effect
        now, last = self._levels(label, effect, look)
        alpha = max(now, SMALLEST_LEVEL)
        found = make_difference(label, effect, effect.p_value, scale, Multiplicity(1, alpha))
        if alpha <= SMALLEST_LEVEL and not effect.obstacle:
            found = replace(found, verdict="undecided")
        why = self._family.excluded.get(label, "")
        made = Conclusion(label, found, look.count, alpha, why=why)
        self._found.conclusions[label] = made
        if made.decided:
            self._open.remove(label)
        elif effect.obstacle == "few items" or _is_limited_by_items(effect, scale.bound, last):
            more = None if effect.obstacle else needed(effect, scale.bound, last)
            self._close(label, "items", more_items=more.more_items if more else None)

    def _limit_all(self) -> None:
        for label in self._open:
            if self._found.conclusions[label].limit != "unpaired":
                self._limit(label, "seeds")

    def _close(
        self, label: str, limit: Limit, why: str = "", *, more_items: float | None = None
    ) -> None:
        self._limit(label, limit, why, more_items)
        self._open.remove(label)

    def _limit(
        self, label: str, limit: Limit, why: str = "", more_items: float | None = None
    ) -> None:
        found = self._found.conclusions.get(label) or Conclusion(label, None, 0, 0.0)
        self._found.conclusions[label] = replace(found, limit=limit, more_items=more_items, why=why)


def _is_limited_by_items(effect: Effect, margin: float, alpha: float) -> bool:
    """Whether not even any number of seeds would decide it at the last look.

    The estimate may still move by what the seeds so far leave open. One pair of seeds does not
    say how much that is.
    """
    if is_without_seeds(effect):
        return True
    noise = effect.noise if effect.discordant is None else effect.discordant.noise
    if effect.obstacle or noise.seeds is None:
        return False
    half = noise.scaled(effect.seeds / FAR, 1.0, FAR).half_width(alpha)
    moves = 2 * math.sqrt(noise.seeds)
    nearest, furthest = max(abs(effect.estimate) - moves, 0.0), abs(effect.estimate) + moves
    return furthest <= half and nearest + half >= margin
