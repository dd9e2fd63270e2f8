"""Noise: how far an estimate may lie from the truth, from items, seeds and both together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SMALLEST_P = 1e-9
STEPS = 40
FEWEST_FREEDOM = 2.0  # of a seed variance, below which it is hardly known


@lru_cache(maxsize=65536)
def t_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t; ``freedom`` need not be whole."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


@lru_cache(maxsize=65536)
def normal_quantile(probability: float) -> float:
    """Quantile of the standard normal distribution."""
    from scipy.special import ndtri

    return float(ndtri(probability))


@dataclass(frozen=True)
class Noise:
    """Variance components of a mean over seeds (S) and clusters of items (C).

    With the model ``mu + a_s + b_c + e_sc``:

    * ``seeds`` is A, the variance of the per-seed means over S; it holds ``a`` and ``e``. None
      where no training is involved, or where there is one seed, so that it is unknown;
    * ``items`` is B, the variance of the mean over clusters; it holds ``b`` and ``e``;
    * ``both`` is I, the part that A and B both hold, ``e``.

    ``item_freedom`` and ``seed_freedom`` are the degrees of freedom of B and A.
    """

    items: float
    item_freedom: float
    seeds: float | None = None
    seed_freedom: float = 0.0
    both: float = 0.0

    @property
    def variance(self) -> float:
        """Variance of the estimate: ``A + B - I``, never below A or B.

        Source: Cameron, Gelbach and Miller, "Robust inference with multiway clustering" (2011).
        """
        seeds = self.seeds or 0.0
        return max(seeds + self.items - self.both, seeds, self.items)

    @classmethod
    def of_mean(cls, values: Floats) -> Noise:
        """Of the mean of independent values, two or more: Student's interval follows from it."""
        return cls(float(values.var(ddof=1)) / len(values), len(values) - 1.0)

    def interval(self, middle: float, alpha: float) -> tuple[float, float]:
        """The two-sided interval of an estimate; see :meth:`half_width`."""
        half = self.half_width(alpha)
        return middle - half, middle + half

    def half_width(self, alpha: float) -> float:
        """Half the two-sided interval that misses the truth with probability ``alpha``.

        The half-widths of the parts are added as squares, each with its own quantile ``t``:
        ``A t_A^2 + B t_B^2 - I z t_A``, never below ``B t_B^2`` or ``A z^2``. Sources: Graybill
        and Wang, "Confidence intervals on nonnegative linear combinations of variances" (1980),
        and Zou and Donner's "method of variance estimates recovery" (2008). Satterthwaite's
        single number of degrees of freedom covers only 87 to 93 % where two or three seeds differ
        more than the items do (tests/stats/simulate.py). The factor ``z t_A`` of I is a
        choice between ``z^2``, too wide without seed noise, and ``t_A^2``, too narrow with it.
        With two seeds it is ``z^2``: there ``t_A`` is so large at small ``alpha`` that more would
        be taken away than A holds, and too many differences would be called.
        """
        by_items = self.items * t_quantile(1 - alpha / 2, max(self.item_freedom, 1.0)) ** 2
        if self.seeds is None:
            return math.sqrt(by_items)
        z = normal_quantile(1 - alpha / 2)
        t = t_quantile(1 - alpha / 2, max(self.seed_freedom, 1.0))
        other = t if self.seed_freedom >= FEWEST_FREEDOM else z
        whole = by_items + self.seeds * t * t - self.both * z * other
        return math.sqrt(max(whole, by_items, self.seeds * z * z))

    def p_value(self, distance: float) -> float:
        """The ``alpha`` at which half the interval equals ``distance``: a two-sided p-value."""
        return _p_value(self, distance)

    def scaled(self, fewer_by_seeds: float, fewer_by_items: float, seeds: int) -> Noise:
        """The same noise with other numbers of seeds and items.

        Args:
            fewer_by_seeds: today's number of seeds over the other number.
            fewer_by_items: today's number of items over the other number.
            seeds: the other number of seeds.
        """
        both = self.both * fewer_by_seeds * fewer_by_items
        items = max(self.items - self.both, 0.0) * fewer_by_items + both
        freedom = (self.item_freedom + 1) / fewer_by_items - 1
        if self.seeds is None:
            return Noise(items, freedom)
        own = max(self.seeds - self.both, 0.0) * fewer_by_seeds + both
        grown = self.seed_freedom * (seeds - 1) / max(seeds * fewer_by_seeds - 1, 1)
        return Noise(items, freedom, own, grown, both)


def small_sample(weights: Floats) -> tuple[float, float]:
    """Factor that unbiases a sum of squared influences, and its degrees of freedom.

    ``weights`` has shape (clusters,). With residuals ``r_c = e_c - sum_j h_j e_j`` and shares
    ``h = w / sum w``, the expectation of ``sum h^2 r^2`` is ``sigma^2 (sum h^2 - 2 sum h^3 +
    (sum h^2)^2)``; equal weights give ``C / (C - 1)`` and ``C - 1``. Source: Bell and McCaffrey,
    "Bias reduction in standard errors" (2002), under equal variances.
    """
    share = weights / weights.sum()
    squares = float((share**2).sum())
    kept = 1 - 2 * float((share**3).sum()) / squares + squares
    freedom = squares**2 / float((share**4).sum()) - 1
    return 1 / max(kept, 1e-6), max(freedom, 1.0)


def make_noise(values: Floats, influence: Floats, weights: Floats) -> Noise:
    """Noise of the mean of ``values``.

    Args:
        values: one value (or paired difference) per seed, shape (seeds,).
        influence: what each cluster adds to a value beyond its share, shape (clusters, seeds);
            every column sums to zero.
        weights: what each cluster carries, such as its tokens, shape (clusters,).
    """
    seeds = len(values)
    correction, freedom = small_sample(weights)
    mean = influence.mean(axis=1)
    items = correction * float(mean @ mean)
    if seeds == 1:
        return Noise(items, freedom)
    apart = influence - mean[:, None]
    return Noise(
        items=items,
        item_freedom=freedom,
        seeds=float(values.var(ddof=1)) / seeds,
        seed_freedom=seeds - 1.0,
        both=correction * float((apart**2).sum()) / (seeds * (seeds - 1)),
    )


@lru_cache(maxsize=16384)  # a study looks at all its comparisons again after every round
def _p_value(noise: Noise, distance: float) -> float:
    if noise.variance <= 0:
        return 1.0 if distance == 0 else SMALLEST_P
    if noise.half_width(SMALLEST_P) <= distance:
        return SMALLEST_P
    if noise.seeds is None:
        from scipy.special import stdtr

        freedom = max(noise.item_freedom, 1.0)
        return float(2 * stdtr(freedom, -abs(distance) / math.sqrt(noise.items)))
    low, high = math.log(SMALLEST_P), 0.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if noise.half_width(math.exp(middle)) > distance:
            low = middle
        else:
            high = middle
    return math.exp(high)
