"""Statistics: the hierarchical paired bootstrap, Holm's correction, verdicts and needed sizes.

The model behind every interval. Runs of a variant differ by seed; all runs answer the same items,
and items of one conversation tree (a cluster) are alike. The difference of two variants in seed
``s`` and cluster ``c`` is ``mu + a_s + b_c + e_sc``. Three parts of the variance of its mean are
read off the data:

* ``A``, between seeds: the variance of the per-seed differences over ``S`` (holds ``e`` once);
* ``B``, between items: the bootstrap variance of the mean difference when clusters are drawn with
  replacement, the same clusters for every run (holds ``e`` once);
* ``I``, both at once: the bootstrap variance of the per-seed deviations over ``S - 1``.

``A + B - I`` counts each part once (two-way clustering: Cameron, Gelbach and Miller, "Robust
Inference with Multiway Clustering", 2011). It never falls below ``B``. Intervals take Student's t
with Satterthwaite's degrees of freedom, because percentiles over three or five seeds would promise
far too much. With one seed ``A`` is unknown and the interval is about items only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["better", "worse", "equivalent", "undecided"]
Floats = NDArray[np.float64]

CHUNK_CELLS = 4_000_000
MOST_SEEDS = 100
MOST_ITEMS_FACTOR = 1_000.0
POWER = 0.8


@dataclass(frozen=True)
class Effect:
    """An estimate on the additive scale with its variance components."""

    estimate: float
    seed_variance: float | None
    item_variance: float
    shared_variance: float
    seeds: int
    clusters: int

    @property
    def variance(self) -> float:
        """Variance of the estimate, each component counted once."""
        if self.seed_variance is None:
            return self.item_variance
        both = self.seed_variance + self.item_variance - self.shared_variance
        return max(both, self.item_variance)

    @property
    def standard_error(self) -> float:
        """Square root of the variance."""
        return math.sqrt(self.variance)

    @property
    def degrees_of_freedom(self) -> float:
        """Satterthwaite's approximation for a sum of estimated variances."""
        item_df = max(self.clusters - 1, 1)
        if self.seed_variance is None or self.seeds < 2:
            return float(item_df)
        seed_df = self.seeds - 1
        beyond_items = max(self.seed_variance - self.shared_variance, 0.0)
        seed_part = self.seed_variance if beyond_items > 0 else 0.0
        spread = (
            seed_part**2 / seed_df
            + self.item_variance**2 / item_df
            + (self.shared_variance**2 / (seed_df * item_df) if beyond_items > 0 else 0.0)
        )
        return max(self.variance**2 / spread, 1.0) if spread > 0 else float(item_df)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided interval of the estimate."""
        half = t_quantile(0.5 + level / 2, self.degrees_of_freedom) * self.standard_error
        return self.estimate - half, self.estimate + half

    @property
    def p_value(self) -> float:
        """Two-sided p-value of no difference; exactly equal values give 1."""
        if self.variance <= 0:
            return 1.0 if self.estimate == 0 else 0.0
        from scipy.special import stdtr

        distance = abs(self.estimate) / self.standard_error
        return float(2 * stdtr(self.degrees_of_freedom, -distance))


def t_quantile(probability: float, degrees_of_freedom: float) -> float:
    """Quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, probability))


def resample(numerator: Floats, denominator: Floats, resamples: int, seed: int = 0) -> Floats:
    """Bootstrap ratios of sums over clusters, the same drawn clusters for every run.

    Args:
        numerator: cluster sums, shape (clusters, runs).
        denominator: cluster sums, shape (clusters, runs).
        resamples: how many times the clusters are drawn with replacement.
        seed: of the random numbers.

    Returns:
        Ratios of shape (resamples, runs).
    """
    clusters, runs = numerator.shape
    alike = bool((denominator == denominator[:, :1]).all())
    below = np.ascontiguousarray(denominator[:, :1] if alike else denominator)
    draws = np.random.default_rng(seed)
    ratios = np.empty((resamples, runs))
    step = max(1, CHUNK_CELLS // clusters)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        weights = _weights(draws, count, clusters)
        ratios[start : start + count] = (weights @ numerator) / (weights @ below)
    return ratios


def _weights(draws: np.random.Generator, count: int, clusters: int) -> Floats:
    """How often each cluster was drawn, shape (count, clusters); each row sums to clusters."""
    picked = draws.integers(0, clusters, size=(count, clusters), dtype=np.int32)
    picked += (np.arange(count, dtype=np.int32) * clusters)[:, None]
    return (
        np.bincount(picked.ravel(), minlength=count * clusters)
        .reshape(count, clusters)
        .astype(np.float64)
    )


def effect(values: Floats, replicates: Floats, clusters: int) -> Effect:
    """Mean over seeds with its variance components.

    Args:
        values: one value (or paired difference) per seed, shape (seeds,).
        replicates: the same under resampled clusters, shape (resamples, seeds).
        clusters: how many clusters were resampled.
    """
    seeds = len(values)
    correction = clusters / (clusters - 1) if clusters > 1 else 1.0
    mean = replicates.mean(axis=1)
    item_variance = float(mean.var(ddof=1)) * correction
    if seeds == 1:
        return Effect(float(values[0]), None, item_variance, 0.0, 1, clusters)
    deviations = (replicates - mean[:, None]).var(axis=0, ddof=1).sum() * correction
    return Effect(
        estimate=float(values.mean()),
        seed_variance=float(values.var(ddof=1)) / seeds,
        item_variance=item_variance,
        shared_variance=float(deviations) / (seeds * (seeds - 1)),
        seeds=seeds,
        clusters=clusters,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the given order."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def verdict(worse_by: Effect, adjusted_p: float, margin: float) -> Verdict:
    """Judge a difference counted so that positive is worse.

    Equivalent when the whole 95 % interval lies within the margin (two one-sided tests at 2.5 %);
    better or worse when the corrected p-value is below 5 %; undecided otherwise.
    """
    low, high = worse_by.interval()
    if -margin < low and high < margin:
        return "equivalent"
    if adjusted_p < 0.05:
        return "worse" if worse_by.estimate > 0 else "better"
    return "undecided"


@dataclass(frozen=True)
class Needed:
    """What would decide an undecided comparison, the rest unchanged; None: not by that alone."""

    seeds: int | None
    clusters: int | None


def needed(found: Effect, margin: float) -> Needed:
    """Seeds, or clusters, that decide with 80 % power if the difference is as estimated.

    A difference is decided against zero or against the nearer bound of the margin, whichever is
    farther: ``(t_0.975 + t_0.8) * standard error`` must not exceed that distance.
    """
    distance = max(abs(found.estimate), margin - abs(found.estimate))
    if distance <= 0:
        return Needed(None, None)
    clusters = _first(
        found.clusters,
        math.ceil(found.clusters * MOST_ITEMS_FACTOR),
        lambda count: _decides(found, distance, found.seeds, count),
    )
    if found.seed_variance is None:
        return Needed(None, clusters)
    seeds = _first(
        found.seeds, MOST_SEEDS, lambda count: _decides(found, distance, count, found.clusters)
    )
    return Needed(seeds, clusters)


def _first(low: int, high: int, holds: object) -> int | None:
    """The smallest count in (low, high] for which ``holds``, which stays true from there on."""
    assert callable(holds)  # noqa: S101 - narrows the type
    if not holds(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def _decides(found: Effect, distance: float, seeds: int, clusters: int) -> bool:
    by_seeds = found.seeds / seeds
    by_clusters = found.clusters / clusters
    shared = found.shared_variance
    between_seeds = max((found.seed_variance or 0.0) - shared, 0.0) * by_seeds
    between_items = max(found.item_variance - shared, 0.0) * by_clusters
    both = shared * by_seeds * by_clusters
    scaled = Effect(
        estimate=found.estimate,
        seed_variance=None if found.seed_variance is None else between_seeds + both,
        item_variance=between_items + both,
        shared_variance=both,
        seeds=seeds,
        clusters=clusters,
    )
    freedom = scaled.degrees_of_freedom
    quantiles = t_quantile(0.975, freedom) + t_quantile(POWER, freedom)
    return quantiles * scaled.standard_error <= distance
