"""Decide: whether data fit a sentence, refute it or leave it open, and at which error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

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
class Errors:
    """P-values of the two verdicts of one comparison: that the sentence holds, that it is refuted.

    Both can be small: a gain that is there, and below the margin, fits "better" and refutes it.
    """

    fits: float
    refutes: float

    def verdict(self, comparisons: int = 1) -> Outcome:
        """The outcome where so many comparisons are read together (Bonferroni).

        Of the two verdicts of a comparison at most one can be false, whatever the truth is:
        "better" is falsely reproduced only where there is no gain, and falsely refuted only where
        there is one of the margin. So both may be asked at the price of one. Holm's step-down
        would not do: it counts what has been settled as settled rightly, in either direction.
        """
        # Better, but by less than the margin: both hold, and the sentence is true.
        if self.fits * comparisons < ALPHA:
            return "reproduced"
        return "contradicted" if self.refutes * comparisons < ALPHA else "undecided"


@dataclass(frozen=True)
class Leaning:
    """What one comparison says, in numbers and words.

    ``errors`` are there where it has noise; ``outcome`` is then that of this comparison alone.
    ``decides`` says what would settle it, ``short`` what was measured in a few words.
    """

    outcome: Outcome
    text: str
    decides: str = ""
    short: str = ""
    errors: Errors | None = None


@dataclass(frozen=True)
class LookCorrection:
    """What a comparison is corrected for: the looks that it pays for, and others beside it."""

    looks: int = 1
    alone: bool = False

    def error(self, errors: Errors, where: Regions) -> float:
        """The error of the interval that is shown: its verdict's where no other is read beside it.

        Beside others an interval is shown at 95 %, which is no wider than that of a verdict.
        """
        if not self.alone:
            return ALPHA
        sides = 1 if errors.verdict() == "reproduced" else len(where.refutes)
        return 2 * ALPHA / (self.looks * sides)


def said_of(error: float) -> str:
    """What a shown interval needs to have said of it; nothing where it is one of 95 %."""
    if error == ALPHA:
        return ""
    return f" (each end one-sided, {100 * (1 - error / 2):.3g} %)"


def lean(interval: Interval, where: Regions, looks: int = 1) -> Errors:
    """At which error an interval lies where a sentence holds, and where it is refuted.

    An interval misses the truth on each side in half of its error, and a verdict is false on one
    side alone; where there are two regions that refute, it may be on either. A study that may
    have stopped at each of several looks pays for all of them (Bonferroni).
    """
    fits = _error(interval, where.fits) / 2
    refutes = min(_error(interval, region) for region in where.refutes) * len(where.refutes) / 2
    return Errors(min(1.0, fits * looks), min(1.0, refutes * looks))


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
    """Outcomes where all noisy comparisons are read together: any is false in at most 5 %."""
    noisy = sum(found.errors is not None for found in measured)
    return [
        found.outcome if found.errors is None else found.errors.verdict(noisy) for found in measured
    ]
