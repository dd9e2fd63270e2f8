"""Judging: rows of one score against the reference, with corrected p-values and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.report.sample import Sample, Scale, round6
from harness.report.statistics.effects import Effect, Obstacle
from harness.report.statistics.moderation import moderate
from harness.report.statistics.power import Needed, needed, smallest_difference
from harness.report.statistics.verdicts import Verdict, verdict

ALPHA = 0.05


@dataclass(frozen=True)
class Multiplicity:
    """Comparisons read together: how many, and the error allowed to each before correction.

    A study that looks several times spends less than 5 % at each look.
    """

    tests: int = 1
    alpha: float = ALPHA


ALONE = Multiplicity()
Correction = Callable[[Sequence[float]], list[float]]


class PValues(NamedTuple):
    """Of no difference, and of one of the margin or more."""

    difference: float
    equivalence: float


@dataclass(frozen=True)
class Difference:
    """A row against the reference, in the terms shown; ``worse_by`` is on the additive scale.

    Interval and p-values are None where ``obstacle`` says that the data allow none. ``smallest``
    is the smallest difference that the data would show. ``adjusted_p`` and ``equal_p`` are
    corrected, of no difference and of one of the margin or more.
    """

    label: str
    estimate: float
    low: float | None
    high: float | None
    p_value: float | None
    adjusted_p: float | None
    verdict: Verdict
    obstacle: Obstacle
    worse_by: Effect
    smallest: float | None = None
    needed: Needed | None = None
    equal_p: float | None = None


def compare_all(sample: Sample, reference: str | None) -> dict[str, Effect]:
    """Every row of a sample minus the reference, seed variances moderated among trained rows."""
    if reference is None or not sample.columns(reference):
        return {}
    effects = {
        label: found
        for label in sample.labels
        if label != reference and (found := sample.paired(label, reference)) is not None
    }
    trained = [label for label in effects if sample.trains(label)]
    noises = moderate(
        [effects[label].noise for label in trained],
        [effects[label].seeds for label in trained],
        correlated=sample.trains(reference),
    )
    moderated = zip(trained, noises, strict=True)
    return effects | {label: effects[label].with_noise(noise) for label, noise in moderated}


def adjust(
    effects: Mapping[str, Effect], bounds: Mapping[str, float], correction: Correction
) -> dict[str, PValues]:
    """Corrected p-values: differences between variants together, those of trainings together.

    Those of equivalence are a family of their own, of as many comparisons, in which any false call
    may be as likely as among the differences; none is below that of its own interval alone.
    ``bounds`` are the margins on the scale of the effects, by the same labels.
    """
    adjusted: dict[str, PValues] = {}
    for obstacle in ("", "one training"):
        family = [label for label, found in effects.items() if found.obstacle == obstacle]
        different = correction([effects[label].p_value for label in family])
        alone = [effects[label].equivalence_p(bounds[label]) for label in family]
        # A false equivalence is a miss of the interval on one side: half of its error.
        equal = map(max, alone, correction([p / 2 for p in alone]))
        found = map(PValues, different, equal)
        adjusted |= dict(zip(family, found, strict=True))
    return adjusted


def make_difference(
    label: str,
    found: Effect,
    adjusted: PValues | float | None,
    scale: Scale,
    family: Multiplicity = ALONE,
) -> Difference:
    """Judge one paired difference and put it into the terms shown.

    Args:
        label: of the row.
        found: the row minus the other one.
        adjusted: corrected p-values; of no difference alone where no equivalence was corrected;
            None where the effect allows none.
        scale: of the score.
        family: the comparisons that it was corrected with.
    """
    worse_by = found if scale.sign > 0 else found.negated()
    if isinstance(adjusted, PValues):
        adjusted_p: float | None = adjusted.difference
        equal_p = adjusted.equivalence
    else:
        adjusted_p, equal_p = adjusted, found.equivalence_p(scale.bound)
    judged = verdict(
        worse_by,
        1.0 if adjusted_p is None else adjusted_p,
        equal_p,
        alpha=family.alpha,
        exact_loss=scale.relative,
    )
    estimate = round6(scale.difference(found.estimate))
    if found.obstacle:
        return Difference(
            label,
            estimate,
            None,
            None,
            None,
            adjusted_p,
            judged,
            found.obstacle,
            worse_by,
            equal_p=equal_p,
        )
    low, high = found.interval(family.alpha)
    share_of_alpha = family.alpha / family.tests
    for_equivalence = min(family.alpha, 2 * share_of_alpha)  # see :func:`adjust`
    return Difference(
        label=label,
        estimate=estimate,
        low=round6(scale.difference(low)),
        high=round6(scale.difference(high)),
        p_value=round6(found.p_value),
        adjusted_p=None if adjusted_p is None else round6(adjusted_p),
        verdict=judged,
        obstacle="",
        worse_by=worse_by,
        smallest=round6(scale.difference(smallest_difference(worse_by, share_of_alpha))),
        needed=needed(worse_by, scale.bound, for_equivalence) if judged == "undecided" else None,
        equal_p=equal_p,
    )
