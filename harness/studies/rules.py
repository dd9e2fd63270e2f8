"""Rules: when each family of comparisons is looked at, and with which error, decision by decision.

The plan may use nine tenths of a study's error. Every decision that allows more looks, by more
seeds or by another variant, may use half of what the one before it could, in the order in which
they were taken, so that all together stay within the error and none changes an earlier one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.spec.study import Seeds
from harness.studies.looks import Rule
from harness.studies.steering import Decision

PLANNED = 0.9  # of the allowed error; the rest is kept for steering


@dataclass(frozen=True)
class Rules:
    """The rule of the planned variants, and that of each decision to add some, in order."""

    planned: Rule
    added: tuple[Rule, ...]

    @classmethod
    def of(cls, seeds: Seeds, alpha: float, decisions: Sequence[Decision] = ()) -> Rules:
        """The rules after ``decisions``.

        A variant that is added is looked at up to the last seed allowed until then. Seeds that
        are allowed later are a stretch more for all families that there are by then; they share
        the error of that decision evenly.
        """
        last = seeds.last
        families = [[(tuple(range(seeds.first, last + 1)), PLANNED * alpha)]]
        spending = [item for item in decisions if item.kind in ("add", "more_seeds")]
        for number, decision in enumerate(spending):
            error = steered(alpha, number)
            if decision.kind == "add":
                families.append([(tuple(range(seeds.first, last + 1)), error)])
                continue
            more = tuple(range(last + 1, last + int(decision.value) + 1))
            for family in families:
                family.append((more, error / len(families)))
            last += len(more)
        planned, *added = (Rule(tuple(family)) for family in families)
        return cls(planned, tuple(added))


def steered(alpha: float, number: int) -> float:
    """The error that the decision of that number (from 0) may use."""
    return (1 - PLANNED) * alpha * 0.5 ** (number + 1)
