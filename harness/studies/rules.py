"""Rules: when each family of comparisons is looked at, and with which error, decision by decision.

The plan may use nine tenths of a study's error. Every decision that allows more looks, by more
seeds or by other variants, may use half of what the one before it could, in the order in which
they were taken, so that all together stay within the error and none changes an earlier one. The
variants that one command adds are one decision, and share its error evenly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.spec.study import Seeds
from harness.studies.error_spending import levels
from harness.studies.steering import Decision

PLANNED = 0.9  # of the allowed error; the rest is kept for steering


@dataclass(frozen=True)
class Look:
    """One of the looks at ``counts`` seeds, which share the error ``alpha``.

    ``once`` is the error of what is looked at once, however many looks there are.
    """

    counts: tuple[int, ...]
    place: int
    alpha: float
    once: float

    @property
    def count(self) -> int:
        """Seeds at this look."""
        return self.counts[self.place]

    @property
    def counts_so_far(self) -> tuple[int, ...]:
        """Seeds at this look and at those before it that share its error."""
        return self.counts[: self.place + 1]

    def levels(self, arms: int, pairs: Sequence[int]) -> tuple[float, float]:
        """Error of one of so many arms at this look and at the last one.

        ``pairs`` are the seeds at which both sides ended well, at each look up to this one.
        """
        more = (pairs[-1] + count - self.count for count in self.counts[self.place + 1 :])
        times = tuple(count / self.counts[-1] for count in self.counts)
        found = levels(self.alpha / arms, times, (*pairs, *more))
        return found[self.place], found[-1]


@dataclass(frozen=True)
class Rule:
    """When to look and with which error: ``stretches`` of (seeds at each look, error of all)."""

    stretches: tuple[tuple[tuple[int, ...], float], ...]

    @property
    def last(self) -> int:
        """Seeds at the last look."""
        return self.stretches[-1][0][-1]

    def looks(self) -> Iterator[Look]:
        """All looks, in order."""
        once = self.stretches[0][1]
        for counts, alpha in self.stretches:
            for place in range(len(counts)):
                yield Look(counts, place, alpha, once)


@dataclass(frozen=True)
class Rules:
    """The rule of the planned variants, and that of each decision to add some, in order.

    ``decided`` says of each variant that was added, in order, which of these decisions it was.
    """

    planned: Rule
    added: tuple[Rule, ...]
    decided: tuple[int, ...] = ()

    @classmethod
    def of(cls, seeds: Seeds, alpha: float, decisions: Sequence[Decision] = ()) -> Rules:
        """The rules after ``decisions``.

        A variant that is added is looked at up to the last seed allowed until then. Seeds that
        are allowed later are a stretch more for all families that there are by then; they share
        the error of that decision evenly.
        """
        last, number, before = seeds.last, 0, None
        families = [[(tuple(range(seeds.first, last + 1)), PLANNED * alpha)]]
        decided: list[int] = []
        for decision in decisions:
            if decision.kind not in ("add", "more_seeds"):
                continue
            if before is None or not decision.goes_with(before):
                error = steered(alpha, number)
                number += 1
                if decision.kind == "add":
                    families.append([(tuple(range(seeds.first, last + 1)), error)])
                else:
                    more = tuple(range(last + 1, last + int(decision.value) + 1))
                    for family in families:
                        family.append((more, error / len(families)))
                    last += len(more)
            if decision.kind == "add":
                decided.append(len(families) - 2)
            before = decision
        planned, *added = (Rule(tuple(family)) for family in families)
        return cls(planned, tuple(added), tuple(decided))


def steered(alpha: float, number: int) -> float:
    """The error that the decision of that number (from 0) may use."""
    return (1 - PLANNED) * alpha * 0.5 ** (number + 1)
