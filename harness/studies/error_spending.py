"""Spending: how much of the allowed error each of several looks at growing data may use."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from harness.report.statistics.noise import Floats, normal_quantile

POINTS = 801
SMALLEST = 1e-12  # what a look may spend below this is nothing
REACH = 12.0


def spent(alpha: float, time: float) -> float:
    """Error used up by the share ``time`` of the planned data (0 to 1), two-sided.

    It is little at first, so that nearly all is left for the end. Source: Lan and DeMets,
    "Discrete sequential boundaries for clinical trials" (1983), after O'Brien and Fleming.
    """
    if time <= 0:
        return 0.0
    return 4 * _tail(normal_quantile(1 - alpha / 4) / math.sqrt(min(time, 1.0)))


def levels(alpha: float, times: tuple[float, ...]) -> tuple[float, ...]:
    """Two-sided significance levels of looks at ``times``, which together err with ``alpha``.

    ``times`` rise to at most 1. The statistic is taken to gather information evenly, as a mean
    over seeds does; where items limit it, looks are more alike than that and err less often.
    Level 0 is a look at which nothing can be concluded. Source of the recursion: Armitage,
    McPherson and Rowe, "Repeated significance tests on accumulating data" (1969).
    """
    return _levels(round(alpha, 12), times)


@cache
def _levels(alpha: float, times: tuple[float, ...]) -> tuple[float, ...]:
    found: list[float] = []
    before, used = 0.0, 0.0
    places, density = np.zeros(1), np.ones(1)
    for time in times:
        spend = spent(alpha, time) - used
        step = math.sqrt(time - before)
        bound = _bound(places, density, step, max(spend, 0.0))
        found.append(2 * _tail(bound / math.sqrt(time)) if bound < math.inf else 0.0)
        used += max(spend, 0.0)
        places, density = _go_on(places, density, step, min(bound, REACH * math.sqrt(time)))
        before = time
    return tuple(found)


def _bound(places: Floats, density: Floats, step: float, spend: float) -> float:
    """The value beyond which the sum goes, for the first time, with probability ``spend``."""
    from scipy.optimize import brentq
    from scipy.special import ndtr

    if spend < SMALLEST:
        return math.inf

    def excess(bound: float) -> float:
        outside = ndtr((places - bound) / step) + ndtr(-(places + bound) / step)
        return float(density @ outside) - spend

    far = float(np.abs(places).max()) + REACH * step
    return float(brentq(excess, 0.0, far, xtol=1e-10))


def _go_on(places: Floats, density: Floats, step: float, bound: float) -> tuple[Floats, Floats]:
    """Weights of the sum after one more step, within the bound (trapezoidal rule)."""
    grid = np.linspace(-bound, bound, POINTS)
    apart = (grid[:, None] - places[None, :]) / step
    heights = np.exp(-(apart**2) / 2) @ density / (step * math.sqrt(2 * math.pi))
    width = grid[1] - grid[0]
    heights[[0, -1]] /= 2
    return grid, heights * width


def _tail(z: float) -> float:
    """Probability that a standard normal value exceeds ``z``."""
    return math.erfc(z / math.sqrt(2)) / 2
