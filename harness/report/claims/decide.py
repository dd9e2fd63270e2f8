"""Decide: whether data fit a sentence, refute it or leave it open, and at which error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.report.statistics.multiplicity import holm
from harness.report.statistics.noise import SMALLEST_P

ALPHA = 0.05
LARGEST_P = 0.99
STEPS = 40

Outcome = Literal["reproduced", "contradicted", "undecided", "out of reach"]
LEANINGS = ("reproduced", "contradicted")
Span = tuple[float, float]
Interval = Callable[[float], Span]


@dataclass(frozen=True)
class Regions:
    """Where the whole interval must lie for a sentence to hold, or to be refuted."""

    fits: Span
    refutes: tuple[Span, ...]


def regions(says: str, margin: float) -> Regions:
    """The regions of a sentence about how much worse one side is.

    "better" holds where the interval lies below zero, and is refuted where it lies above the
    negative margin: no improvement of that size. "worse" is its mirror image. "equal" holds
    within the margin and is refuted beyond it; "reaches" looks at one side of that only.
    """
    whole = math.inf
    if says == "better":
        return Regions((-whole, 0.0), ((-margin, whole),))
    if says == "worse":
        return Regions((0.0, whole), ((-whole, margin),))
    if says == "reaches":
        return Regions((-whole, margin), ((margin, whole),))
    return Regions((-margin, margin), ((-whole, -margin), (margin, whole)))


def within(low: float, high: float) -> Regions:
    """The regions of a sentence that gives a range."""
    return Regions((low, high), ((-math.inf, low), (high, math.inf)))


@dataclass(frozen=True)
class Leaning:
    """What one comparison leans to, with the error of saying so, in numbers and words.

    ``p`` is the smallest error at which the interval lies in a region: 0 where the comparison has
    no noise. ``decides`` says what would settle it, ``short`` what was measured in a few words.
    """

    outcome: Outcome
    p: float
    text: str
    decides: str = ""
    short: str = ""


def lean(interval: Interval, where: Regions, looks: int = 1) -> tuple[Outcome, float]:
    """Which region the interval enters first as its confidence falls, and at which error.

    A study that may have stopped at each of several looks pays for all of them (Bonferroni).
    """
    fits = _error(interval, where.fits)
    refutes = min(_error(interval, region) for region in where.refutes)
    # Better, but by less than the margin: both regions hold the interval, and the sentence is true.
    if fits <= refutes or fits * looks < ALPHA:
        return "reproduced", min(1.0, fits * looks)
    return "contradicted", min(1.0, refutes * looks)


def _error(interval: Interval, region: Span) -> float:
    """The smallest error at which the whole interval lies in ``region``; 1 where at none."""

    def inside(alpha: float) -> bool:
        low, high = interval(alpha)
        return region[0] < low and high < region[1]

    if not inside(LARGEST_P):
        return 1.0
    low, high = math.log(SMALLEST_P), math.log(LARGEST_P)
    if inside(SMALLEST_P):
        return SMALLEST_P
    for _ in range(STEPS):
        middle = (low + high) / 2
        if inside(math.exp(middle)):
            high = middle
        else:
            low = middle
    return math.exp(high)


def corrected(measured: Sequence[Leaning]) -> list[Outcome]:
    """Outcomes after Holm's correction of all noisy comparisons that are read together."""
    noisy = [
        place for place, found in enumerate(measured) if found.p > 0 and found.outcome in LEANINGS
    ]
    adjusted = dict(zip(noisy, holm([measured[place].p for place in noisy]), strict=True))
    return [
        "undecided"
        if found.outcome in LEANINGS and adjusted.get(place, 0.0) >= ALPHA
        else found.outcome
        for place, found in enumerate(measured)
    ]
