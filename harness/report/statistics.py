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
Inference with Multiway Clustering", 2011), and never falls below ``B``. The critical value is the
mean of Student's t for the seeds' and for the clusters' degrees of freedom, weighted by the parts
(Cochran and Cox, "Experimental Designs", 1957): percentiles over three seeds would promise far
too much. Few clusters of unequal weight get the bias correction and the degrees of freedom of
Bell and McCaffrey ("Bias Reduction in Standard Errors", 2002) under equal variances. With one
seed ``A`` is unknown and the interval is about items only.

Three seeds estimate ``A`` badly, and among many comparisons one is small by chance, which would
look like a sure difference. Comparisons with one reference therefore share their estimate
(:func:`pool_seeds`).

By simulation (tests/report/test_report_statistics.py) intervals cover the truth in 93 to 97 % of
tries with one seed and with three or more; two seeds that differ more than the items do cover
only about 91 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["better", "worse", "equivalent", "undecided"]
Floats = NDArray[np.float64]

CHUNK_CELLS = 4_000_000
MOST_SEEDS = 100
MOST_TIMES_ITEMS = 1_000
POWER = 0.8
SMALLEST_P = 1e-9


@dataclass(frozen=True)
class Effect:
    """An estimate on the additive scale with its variance components.

    ``seed_variance`` is None with one seed. ``item_freedom`` are the degrees of freedom of the
    item variance and ``seed_freedom`` those of the seed variance; they need not be whole.
    """

    estimate: float
    seed_variance: float | None
    item_variance: float
    shared_variance: float
    seeds: int
    item_freedom: float
    seed_freedom: float = 0.0

    @property
    def variance(self) -> float:
        """Variance of the estimate, each component counted once."""
        return self._beyond_items + self.item_variance

    @property
    def _beyond_items(self) -> float:
        return max((self.seed_variance or 0.0) - self.shared_variance, 0.0)

    @property
    def standard_error(self) -> float:
        """Square root of the variance."""
        return math.sqrt(self.variance)

    def critical(self, probability: float) -> float:
        """How many standard errors leave ``1 - probability`` in one tail."""
        by_items = t_quantile(probability, max(self.item_freedom, 1.0))
        if self._beyond_items == 0:
            return by_items
        by_seeds = t_quantile(probability, max(self.seed_freedom, 1.0))
        return (self._beyond_items * by_seeds + self.item_variance * by_items) / self.variance

    def negated(self) -> Effect:
        """The same effect counted the other way round."""
        return replace(self, estimate=-self.estimate)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided interval of the estimate."""
        half = self.critical(0.5 + level / 2) * self.standard_error
        return self.estimate - half, self.estimate + half

    @property
    def p_value(self) -> float:
        """Two-sided p-value of no difference: one minus the level whose interval ends at zero."""
        if self.variance <= 0:
            return 1.0 if self.estimate == 0 else SMALLEST_P
        distance = abs(self.estimate) / self.standard_error
        low, high = math.log(SMALLEST_P), 0.0
        if self.critical(1 - SMALLEST_P / 2) <= distance:
            return SMALLEST_P
        # Bisection to seven digits, because scipy.optimize takes long to import.
        while high - low > 1e-7:
            middle = (low + high) / 2
            if self.critical(1 - math.exp(middle) / 2) > distance:
                low = middle
            else:
                high = middle
        return math.exp(high)


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


def small_sample(weights: Floats) -> tuple[float, float]:
    """Factor that unbiases the bootstrap variance, and its degrees of freedom.

    ``weights`` has shape (clusters,). With residuals ``r_c = e_c - sum_j h_j e_j`` and shares
    ``h = w / sum w``, the expectation of ``sum w^2 r^2`` is ``sigma^2 (sum w^2 - 2 sum w^3 / W +
    (sum w^2)^2 / W^2)``; equal weights give ``C / (C - 1)`` and ``C - 1``.
    """
    share = weights / weights.sum()
    squares = float((share**2).sum())
    kept = 1 - 2 * float((share**3).sum()) / squares + squares
    freedom = squares**2 / float((share**4).sum()) - 1
    return 1 / max(kept, 1e-6), max(freedom, 1.0)


def effect(values: Floats, replicates: Floats, weights: Floats) -> Effect:
    """Mean over seeds with its variance components.

    Args:
        values: one value (or paired difference) per seed, shape (seeds,).
        replicates: the same under resampled clusters, shape (resamples, seeds).
        weights: what each resampled cluster carries, such as its tokens, shape (clusters,).
    """
    seeds = len(values)
    correction, freedom = small_sample(weights)
    mean = replicates.mean(axis=1)
    item_variance = float(mean.var(ddof=1)) * correction
    if seeds == 1:
        return Effect(float(values[0]), None, item_variance, 0.0, 1, freedom)
    deviations = (replicates - mean[:, None]).var(axis=0, ddof=1).sum() * correction
    return Effect(
        estimate=float(values.mean()),
        seed_variance=float(values.var(ddof=1)) / seeds,
        item_variance=item_variance,
        shared_variance=float(deviations) / (seeds * (seeds - 1)),
        seeds=seeds,
        item_freedom=freedom,
        seed_freedom=seeds - 1.0,
    )


def pool_seeds(effects: Sequence[Effect]) -> list[Effect]:
    """Share the seed variance among comparisons of trained variants with one trained reference.

    The variances per run are averaged. Differences that share the reference are correlated by one
    half, so ``k`` estimates with ``v`` degrees of freedom are worth ``4 v k / (k + 3)``. An effect
    whose own seeds differ significantly more (F test at 5 %) keeps its own.
    """
    known = [found for found in effects if found.seed_variance is not None]
    if len(known) < 2:
        return list(effects)
    per_run = [(found.seed_variance or 0.0) * found.seeds for found in known]
    pooled = sum(per_run) / len(per_run)
    own_freedom = sum(found.seed_freedom for found in known) / len(known)
    freedom = 4 * own_freedom * len(known) / (len(known) + 3)
    return [_pool(found, pooled, freedom) for found in effects]


def _pool(found: Effect, per_run: float, freedom: float) -> Effect:
    if found.seed_variance is None:
        return found
    from scipy.special import fdtrc

    pooled = per_run / found.seeds
    if pooled > 0 and fdtrc(found.seed_freedom, freedom, found.seed_variance / pooled) < 0.05:
        return found
    return replace(found, seed_variance=pooled, seed_freedom=max(freedom, found.seed_freedom))


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
    better or worse when the corrected p-value is below 5 %; undecided otherwise, and where items
    that all differ alike (say, every one right against every one wrong) leave no noise to judge by.
    """
    if worse_by.variance <= 0 and worse_by.estimate != 0:
        return "undecided"
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
    more_items: float | None


def needed(found: Effect, margin: float, tests: float = 1.0) -> Needed:
    """Seeds, or how many times the items, that decide with 80 % power at the estimated difference.

    Against zero, ``(t_(1 - 0.025 / tests) + t_0.8) * standard error`` must not exceed the
    difference, ``tests`` being Holm's factor at its place; against the nearer bound of the margin,
    ``(t_0.975 + t_0.8) * standard error`` must not exceed the distance to it.
    """
    goal = _Goal(abs(found.estimate), margin - abs(found.estimate), 1 - 0.025 / tests)
    tenths = _first(
        10, 10 * MOST_TIMES_ITEMS, lambda tenth: _decides(found, goal, found.seeds, tenth / 10)
    )
    more_items = None if tenths is None else tenths / 10
    if found.seed_variance is None:
        return Needed(None, more_items)
    seeds = _first(found.seeds, MOST_SEEDS, lambda seeds: _decides(found, goal, seeds, 1.0))
    return Needed(seeds, more_items)


@dataclass(frozen=True)
class _Goal:
    from_zero: float
    from_margin: float
    probability: float


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


def _decides(found: Effect, goal: _Goal, seeds: int, times_items: float) -> bool:
    """Whether that many seeds and items would decide it."""
    by_seeds = found.seeds / seeds
    shared = found.shared_variance
    seed_part = max((found.seed_variance or 0.0) - shared, 0.0) * by_seeds
    item_part = max(found.item_variance - shared, 0.0) / times_items
    both = shared * by_seeds / times_items
    scaled = Effect(
        estimate=found.estimate,
        seed_variance=None if found.seed_variance is None else seed_part + both,
        item_variance=item_part + both,
        shared_variance=both,
        seeds=seeds,
        item_freedom=(found.item_freedom + 1) * times_items - 1,
        seed_freedom=found.seed_freedom * (seeds - 1) / max(found.seeds - 1, 1),
    )
    error, power = scaled.standard_error, scaled.critical(POWER)
    differs = (scaled.critical(goal.probability) + power) * error <= goal.from_zero
    return differs or (scaled.critical(0.975) + power) * error <= goal.from_margin
