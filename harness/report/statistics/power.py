"""Power: the smallest difference that the data can show, and what would settle the margin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from harness.report.statistics.effects import Effect
from harness.report.statistics.noise import Noise

MOST_SEEDS = 100
MOST_TIMES_ITEMS = 1_000
MISSED = 0.2


@dataclass(frozen=True)
class Needed:
    """What would settle the margin, the rest unchanged; None: not by that alone."""

    seeds: int | None
    more_items: float | None


def smallest_difference(found: Effect, alpha: float = 0.05) -> float:
    """The true difference that these items and seeds would show in 80 of 100 repetitions.

    ``alpha`` is what is left to one comparison after the correction. It depends on the noise
    alone, not on the difference that was observed.
    """
    noise = _noise(found)
    return noise.half_width(alpha) + noise.half_width(2 * MISSED)


def needed(found: Effect, margin: float, alpha: float = 0.05) -> Needed:
    """Seeds, or how many times the items, that show equal variants to be equal within the margin.

    With no true difference the interval lies within the margin in 80 of 100 repetitions when
    half of it and the half-width of 20 % together do not exceed the margin.
    """
    return _needed(_noise(found), found.seeds, margin, alpha)


@lru_cache(maxsize=16384)  # a study judges the same comparisons again after every round
def _needed(noise: Noise, seeds: int, margin: float, alpha: float) -> Needed:
    def settles(count: int, times_items: float) -> bool:
        scaled = noise.scaled(seeds / count, 1 / times_items, count)
        return scaled.half_width(alpha) + scaled.half_width(MISSED) <= margin

    tenths = _first(10, 10 * MOST_TIMES_ITEMS, lambda tenth: settles(seeds, tenth / 10))
    more_items = None if tenths is None else tenths / 10
    if noise.seeds is None:
        return Needed(None, more_items)
    return Needed(_first(seeds, MOST_SEEDS, lambda count: settles(count, 1.0)), more_items)


def _noise(found: Effect) -> Noise:
    return found.noise if found.discordant is None else found.discordant.noise


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int | None:
    """The smallest count in (low, high] for which ``holds``, which stays true from there on."""
    if not holds(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
