"""Variance components and intervals: exact cases, textbook values, and what may never happen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.report.statistics.effects import Effect
from harness.report.statistics.noise import Noise, make_noise, small_sample


def test_equal_weights_need_the_textbook_correction() -> None:
    assert small_sample(np.full(20, 3.0)) == pytest.approx((20 / 19, 19))


def test_unequal_weights_are_corrected_without_bias() -> None:
    """The mean of the corrected variance over many tries is the true variance."""
    draws = np.random.default_rng(5)
    weights = np.array([1.0, 1, 2, 3, 5, 8, 13])
    correction, _ = small_sample(weights)
    share = weights / weights.sum()
    noise = draws.standard_normal((200_000, 7))
    residual = noise - (noise @ share)[:, None]
    estimated = correction * ((share * residual) ** 2).sum(axis=1).mean()
    assert estimated == pytest.approx((share**2).sum(), rel=0.01)


def test_the_noise_of_a_mean_is_the_textbook_one() -> None:
    values = np.random.default_rng(2).standard_normal(50)
    influence = (values - values.mean())[:, None] / 50
    found = make_noise(np.array([values.mean()]), influence, np.ones(50))
    assert found.items == pytest.approx(values.var(ddof=1) / 50)
    assert found.p_value(abs(values.mean())) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    half = stats.t.interval(0.95, 49, scale=math.sqrt(found.items))[1]
    assert found.half_width(0.05) == pytest.approx(half)


def test_components_of_a_crossed_design_are_the_textbook_mean_squares() -> None:
    """Seeds by clusters of equal weight: A, B and I are the mean squares over their counts."""
    seeds, clusters = 4, 30
    table = np.random.default_rng(3).standard_normal((clusters, seeds))
    table += np.random.default_rng(4).standard_normal(clusters)[:, None]
    influence = (table - table.mean(axis=0)) / clusters
    found = make_noise(table.mean(axis=0), influence, np.ones(clusters))
    by_seed, by_cluster = table.mean(axis=0), table.mean(axis=1)
    apart = table - by_seed - by_cluster[:, None] + table.mean()
    residual = (apart**2).sum() / ((seeds - 1) * (clusters - 1))
    assert found.seeds == pytest.approx(by_seed.var(ddof=1) / seeds)
    assert found.items == pytest.approx(by_cluster.var(ddof=1) / clusters)
    assert found.both == pytest.approx(residual / (seeds * clusters))


@pytest.mark.parametrize("seed_variance", [0.0, 1e-9, 1.0])
def test_the_whole_is_never_surer_than_its_parts(seed_variance: float) -> None:
    """``A + B - I`` once fell to zero although A and B were not: a certainty from two items."""
    noise = Noise(items=0.2, item_freedom=9.0, seeds=seed_variance, seed_freedom=2.0, both=0.9)
    assert noise.variance >= max(0.2, seed_variance)
    alone = Noise(items=0.2, item_freedom=9.0)
    assert noise.half_width(0.05) >= alone.half_width(0.05)
    assert noise.half_width(0.05) >= 1.959 * math.sqrt(seed_variance)


def test_p_value_and_interval_agree() -> None:
    noise = Noise(items=5e-5, item_freedom=40.0, seeds=1e-4, seed_freedom=2.0, both=2e-5)
    found = Effect(0.03, noise, seeds=3)
    low, high = found.interval(found.p_value)
    assert low == pytest.approx(0, abs=1e-6)
    assert high == pytest.approx(0.06, abs=1e-6)


def test_seed_noise_alone_gives_students_interval() -> None:
    noise = Noise(items=0.0, item_freedom=100.0, seeds=0.04, seed_freedom=2.0, both=0.0)
    assert noise.half_width(0.05) == pytest.approx(stats.t.ppf(0.975, 2) * 0.2)


def test_more_seeds_and_items_shrink_what_belongs_to_them() -> None:
    noise = Noise(items=0.3, item_freedom=29.0, seeds=0.2, seed_freedom=2.0, both=0.1)
    seeds = noise.scaled(3 / 6, 1.0, 6)
    assert (seeds.seeds, seeds.both) == pytest.approx((0.1, 0.05))
    assert seeds.items == pytest.approx(0.25)
    assert seeds.seed_freedom == pytest.approx(5)
    items = noise.scaled(1.0, 0.5, 3)
    assert (items.items, items.both) == pytest.approx((0.15, 0.05))
    assert items.seeds == pytest.approx(0.15)
    assert items.item_freedom == pytest.approx(59)


def test_two_seeds_call_no_more_than_promised_even_at_the_level_of_many_comparisons() -> None:
    """At 1.25 % Student's quantile of two seeds is 51, and what is taken away must not grow so."""
    draws = np.random.default_rng(6)
    shared, tries = 0.02, 40_000
    seen = (1 + shared) * draws.chisquare(1, tries)
    distance = np.abs(math.sqrt(1 + shared) * draws.standard_normal(tries))
    called = [
        Noise(shared, 60.0, variance, 1.0, shared).half_width(0.0125) < far
        for variance, far in zip(seen, distance, strict=True)
    ]
    assert np.mean(called) <= 0.0125 + 3 * math.sqrt(0.0125 / tries)
