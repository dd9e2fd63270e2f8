"""Spending: how much of the allowed error each of several looks at growing data may use."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from harness.report.statistics.noise import Floats, normal_quantile

SMALLEST = 1e-12  # what a look may spend below this is nothing
EDGES = np.linspace(0.0, 8.0, 161)  # standard normal deviates; beyond them nothing happens
FEWEST = 2  # values that have a spread


def spent(alpha: float, time: float) -> float:
    """Error used up by the share ``time`` of the planned data (0 to 1), two-sided.

    It is little at first, so that nearly all is left for the end. Source: Lan and DeMets,
    "Discrete sequential boundaries for clinical trials" (1983), after O'Brien and Fleming.
    """
    if time <= 0:
        return 0.0
    return 4 * _tail(normal_quantile(1 - alpha / 4) / math.sqrt(min(time, 1.0)))


def levels(alpha: float, times: tuple[float, ...], seeds: tuple[int, ...]) -> tuple[float, ...]:
    """Two-sided significance levels of looks at ``times``, which together err with ``alpha``.

    ``times`` rise to at most 1 and say how much error may be used by each look; ``seeds`` are the
    paired seeds that it has, no fewer than the look before. Level 0 is a look at which nothing
    can be concluded, such as one with a single pair. The level of a look depends on the looks
    up to it alone.

    The levels are exact for Student's paired t over seeds. Looks at t values of few seeds are
    less alike than looks at normal values, so that normal boundaries err up to 1.16 times as
    often as they promise (tests/studies/test_error_spending.py). Noise of items, which all looks
    share, and spreads learnt from several variants make looks more alike, and they err less.
    Source of the recursion: Armitage, McPherson and Rowe, "Repeated significance tests on
    accumulating data" (1969); of its form for t, :func:`_step`.
    """
    return _levels(round(alpha, 12), times, seeds)


@cache
def _levels(alpha: float, times: tuple[float, ...], seeds: tuple[int, ...]) -> tuple[float, ...]:
    found: list[float] = []
    used, walk = 0.0, None
    for time, count in zip(times, seeds, strict=True):
        if count < FEWEST:
            found.append(0.0)
            continue
        walk = _Walk.begin(count) if walk is None else walk.go_on(count)
        spend = max(spent(alpha, time) - used, 0.0)
        bound = walk.bound(spend)
        found.append(2 * _tail(bound) if bound < math.inf else 0.0)
        used += spend if bound < math.inf else 0.0
        walk = walk.within(bound)
    return tuple(found)


@dataclass(frozen=True)
class _Walk:
    """How the t value of ``seeds`` normal values lies, where no look has passed its bound yet.

    It is written as the deviate z (0 or more) of equal two-sided p-value; ``mass`` is the
    probability of each cell between :data:`EDGES`.
    """

    seeds: int
    mass: Floats

    @classmethod
    def begin(cls, seeds: int) -> _Walk:
        """At the first look every p-value is as likely as any other."""
        return cls(seeds, -np.diff(_two_sided(EDGES)))

    def go_on(self, seeds: int) -> _Walk:
        """With more values, not looked at in between."""
        mass = self.mass
        for count in range(self.seeds, seeds):
            mass = mass @ _step(count)
        return _Walk(seeds, mass)

    def bound(self, spend: float) -> float:
        """The deviate beyond which a value lies with probability ``spend``."""
        if spend < SMALLEST:
            return math.inf
        beyond = np.maximum(np.cumsum(self.mass[::-1])[::-1], SMALLEST / 10)
        return float(np.interp(-math.log(spend), -np.log(beyond), EDGES[:-1]))

    def within(self, bound: float) -> _Walk:
        """Only what lies within ``bound``."""
        share = np.clip((bound - EDGES[:-1]) / np.diff(EDGES), 0.0, 1.0)
        return _Walk(self.seeds, self.mass * share)


@cache
def _step(n: int) -> Floats:
    """Probability that one value more leads from a cell into another, shape (cells, cells).

    With S the sum of n values and Q that of their squares, ``r = S / sqrt(Q)`` and t grow
    together: ``t^2 = r^2 (n - 1) / (n - r^2)``. All r so far depend on the direction of the
    values alone, which is independent of Q. The next value is therefore ``y sqrt(Q)`` with
    ``y sqrt(n)`` from Student's t with n degrees of freedom, whatever the r so far, and the next
    r is ``(r + y) / sqrt(1 + y^2)``: a Markov chain. It is beyond b where y lies between the
    roots of ``(1 - b^2) y^2 + 2 r y + r^2 - b^2``, or outside of them if b is below 1.
    """
    from scipy.special import stdtr

    r, short = _ratio((EDGES[1:] + EDGES[:-1]) / 2, n)
    b, shorter = _ratio(EDGES, n + 1)
    root = b * np.sqrt(np.maximum(shorter - short[:, None], 0.0))
    steep = np.where(b == 1, 1e-12, 1 - b * b)
    low, high = (stdtr(n, math.sqrt(n) * (-r[:, None] + s * root) / steep) for s in (-1, 1))
    between = np.abs(high - low)
    beyond = np.where(b < 1, 1 - between, between)
    found: Floats = -np.diff(beyond, axis=1)
    return found


def _two_sided(z: Floats) -> Floats:
    from scipy.special import ndtr

    found: Floats = 2 * ndtr(-z)
    return found


def _ratio(z: Floats, n: int) -> tuple[Floats, Floats]:
    """The r of deviates z with n values, and ``n - r^2``, which is small where r is large."""
    from scipy.special import stdtrit

    t = stdtrit(n - 1, _two_sided(z) / 2)
    short = n * (n - 1) / (t * t + n - 1)
    return np.sqrt(np.maximum(n - short, 0.0)), short


def _tail(z: float) -> float:
    """Probability that a standard normal value exceeds ``z``."""
    return math.erfc(z / math.sqrt(2)) / 2
