"""The bootstrap, its intervals and its verdicts, proved by simulation.

A simulated try draws clusters of unequal weight, per-cluster and per-seed differences, and sends
the sums through the same ``resample`` and ``effect`` as a report, with 300 instead of 10,000
resamples. The Monte-Carlo standard error of a 5 % rate over 1,000 tries is 0.7 points; the bounds
below allow two of these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from harness.report.statistics import (
    Effect,
    effect,
    holm,
    needed,
    pool_seeds,
    resample,
    small_sample,
    verdict,
)

TRIES = 1_000
RESAMPLES = 300
MONTE_CARLO = 2 * math.sqrt(0.05 * 0.95 / TRIES)


@dataclass(frozen=True)
class World:
    """How large each source of noise is."""

    seeds: int
    clusters: int
    seed_sd: float
    cluster_sd: float
    both_sd: float


WORLDS = {
    "one seed, few trees": World(1, 28, 0.0, 0.05, 0.02),
    "one seed, many trees": World(1, 200, 0.0, 0.05, 0.02),
    "three seeds, items matter": World(3, 100, 0.002, 0.06, 0.02),
    "three seeds, both matter": World(3, 100, 0.01, 0.05, 0.05),
    "three seeds, seeds matter": World(3, 28, 0.02, 0.02, 0.02),
    "five seeds, both matter": World(5, 28, 0.01, 0.05, 0.02),
}


def simulate(
    world: World, truth: float, variants: int = 1, tries: int = TRIES
) -> list[list[Effect]]:
    """Effects of ``variants`` against one reference in each try."""
    draws = np.random.default_rng(1)
    found = []
    for number in range(TRIES):
        weights = draws.integers(20, 300, world.clusters).astype(float)
        shape = (variants + 1, world.seeds, world.clusters)
        noise = (
            world.seed_sd * draws.standard_normal((*shape[:2], 1))
            + world.cluster_sd * draws.standard_normal((shape[0], 1, world.clusters))
            + world.both_sd * draws.standard_normal(shape)
        ) / math.sqrt(2)
        noise[:-1] += truth
        hard = 2 + 0.4 * draws.standard_normal(world.clusters)
        above = ((hard + noise) * weights).reshape(-1, world.clusters).T
        below = np.repeat(weights[:, None], above.shape[1], axis=1)
        replicates = resample(above, below, RESAMPLES, seed=number)
        replicates = replicates.reshape(RESAMPLES, variants + 1, world.seeds)
        values = (above.sum(axis=0) / below.sum(axis=0)).reshape(variants + 1, world.seeds)
        effects = [
            effect(values[v] - values[-1], replicates[:, v] - replicates[:, -1], weights)
            for v in range(variants)
        ]
        found.append(pool_seeds(effects))
    return found


@pytest.mark.parametrize("name", WORLDS)
def test_intervals_cover_the_truth_and_equal_variants_stay_equal(name: str) -> None:
    truth = 0.03
    effects = [effects[0] for effects in simulate(WORLDS[name], truth)]
    covered = np.mean([low < truth < high for low, high in (e.interval() for e in effects)])
    assert 0.93 <= covered <= 0.97
    # The error does not depend on the truth, so the same tries tell how often equal variants,
    # whose difference is smaller by exactly ``truth``, would be called different.
    equal = [Effect(**{**vars(e), "estimate": e.estimate - truth}) for e in effects]
    assert np.mean([e.p_value < 0.05 for e in equal]) <= 0.05 + MONTE_CARLO


@pytest.mark.parametrize("name", ["three seeds, both matter", "three seeds, seeds matter"])
def test_among_many_identical_variants_hardly_ever_one_is_called_different(name: str) -> None:
    called, covered = 0, []
    for effects in simulate(WORLDS[name], truth=0.0, variants=6):
        adjusted = holm([found.p_value for found in effects])
        verdicts = [verdict(e, p, margin=0.002) for e, p in zip(effects, adjusted, strict=True)]
        called += any(word in ("better", "worse") for word in verdicts)
        covered += [low < 0 < high for low, high in (found.interval() for found in effects)]
    assert called / TRIES <= 0.05 + MONTE_CARLO
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize(
    ("world", "difference"),
    [
        (World(1, 60, 0.0, 0.05, 0.0), 0.02),
        (World(1, 60, 0.0, 0.05, 0.0), 0.012),
        (World(3, 80, 0.02, 0.0, 0.001), 0.05),
        (World(5, 80, 0.02, 0.0, 0.001), 0.03),
    ],
)
def test_a_known_difference_is_found_as_often_as_the_mathematics_says(
    world: World, difference: float
) -> None:
    """Against the power of a t-test, by the noncentral t distribution."""
    effects = [effects[0] for effects in simulate(world, difference)]
    found = np.mean([e.p_value < 0.05 for e in effects])
    if world.seeds == 1:
        freedom = float(np.mean([e.item_freedom for e in effects]))
        # The variance of a weighted mean: weights are uniform on 20 to 299.
        squares = (159.5**2 + 280**2 / 12) / 159.5**2
        error = world.cluster_sd * math.sqrt(squares / world.clusters)
    else:
        freedom, error = world.seeds - 1, world.seed_sd / math.sqrt(world.seeds)
    critical = stats.t.ppf(0.975, freedom)
    shift = difference / error
    power = stats.nct.sf(critical, freedom, shift) + stats.nct.cdf(-critical, freedom, shift)
    assert found == pytest.approx(power, abs=3 * math.sqrt(power * (1 - power) / TRIES) + 0.01)


def test_equivalence_is_not_claimed_of_variants_that_differ_by_the_margin() -> None:
    effects = [e[0] for e in simulate(WORLDS["three seeds, items matter"], truth=0.02)]
    claimed = np.mean([verdict(e, e.p_value, margin=0.02) == "equivalent" for e in effects])
    assert claimed <= 0.025 + 2 * math.sqrt(0.025 * 0.975 / TRIES)


def test_resampling_draws_the_same_clusters_for_every_run() -> None:
    sums = np.random.default_rng(1).random((40, 1))
    same = resample(np.hstack([sums, sums, sums + 1]), np.ones((40, 3)), 500)
    assert np.array_equal(same[:, 0], same[:, 1])
    assert same[:, 2] - same[:, 0] == pytest.approx(np.ones(500))


def test_bootstrap_variance_of_a_mean_is_the_textbook_one() -> None:
    values = np.random.default_rng(2).standard_normal((50, 1))
    replicates = resample(values, np.ones((50, 1)), 20_000)
    found = effect(values.mean(axis=0), replicates, np.ones(50))
    assert found.item_variance == pytest.approx(values.var(ddof=1) / 50, rel=0.04)


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


def test_resampling_does_not_depend_on_the_size_of_its_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draws = np.random.default_rng(3)
    above, below = draws.random((30, 4)), draws.random((30, 4)) + 1
    whole = resample(above, below, 300)
    monkeypatch.setattr("harness.report.statistics.CHUNK_CELLS", 7 * 30)
    assert resample(above, below, 300) == pytest.approx(whole)


def test_p_value_and_interval_agree() -> None:
    found = Effect(0.03, 0.0001, 0.00005, 0.00002, 3, 40.0, 2.0)
    low, high = found.interval(1 - found.p_value)
    assert low == pytest.approx(0, abs=1e-6)
    assert high == pytest.approx(0.06, abs=1e-6)


def test_one_seed_says_nothing_about_seeds() -> None:
    found = effect(np.array([0.1]), np.full((100, 1), 0.1), np.ones(10))
    assert found.seed_variance is None
    assert found.p_value < 1e-6
    assert effect(np.array([0.0]), np.zeros((100, 1)), np.ones(10)).p_value == 1.0


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.9]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("estimate", "error", "expected"),
    [
        (0.05, 0.001, "worse"),
        (-0.05, 0.001, "better"),
        (0.002, 0.001, "equivalent"),
        (0.004, 0.01, "undecided"),
        (0.009, 0.001, "undecided"),
    ],
)
def test_verdicts(estimate: float, error: float, expected: str) -> None:
    found = Effect(estimate, None, error**2, 0.0, 1, 100.0)
    adjusted = found.p_value if expected != "undecided" else 1.0
    assert verdict(found, adjusted, margin=0.01) == expected


def test_pooling_leaves_a_much_noisier_variant_its_own_noise() -> None:
    quiet = [Effect(0.0, 1e-6 * (1 + n / 10), 1e-7, 0.0, 3, 50.0, 2.0) for n in range(5)]
    noisy = Effect(0.0, 1e-3, 1e-7, 0.0, 3, 50.0, 2.0)
    alone = Effect(0.0, None, 1e-7, 0.0, 1, 50.0)
    *pooled, kept, single = pool_seeds([*quiet, noisy, alone])
    assert kept == noisy
    assert single == alone
    assert len({found.seed_variance for found in pooled}) == 1
    assert pooled[0].seed_freedom == pytest.approx(4 * 2 * 6 / 9)


def test_the_needed_seeds_do_decide() -> None:
    found = Effect(0.02, 0.0002, 0.00001, 0.000001, 3, 100.0, 2.0)
    wanted = needed(found, margin=0.01)
    assert wanted.seeds is not None
    assert 3 < wanted.seeds < 30
    assert wanted.more_items is None, "items cannot cure the noise between seeds"
    sd = math.sqrt(0.0002 * 3)
    draws = np.random.default_rng(4).normal(0.02, sd, (2_000, wanted.seeds))
    found_share = np.mean(stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05)
    assert 0.75 < found_share < 0.92, "the t formula is cautious where few seeds are needed"


def test_with_one_seed_only_items_can_be_asked_for() -> None:
    wanted = needed(Effect(0.01, None, 0.0001, 0.0, 1, 30.0), margin=0.01)
    assert wanted.seeds is None
    # (1.96 + 0.84)^2 * 0.0001 / 0.01^2 = 7.8 times the items
    assert wanted.more_items == pytest.approx(7.9, abs=0.2)


def test_more_comparisons_need_more() -> None:
    found = Effect(0.02, None, 0.0001, 0.0, 1, 30.0)
    alone, of_many = needed(found, 0.01), needed(found, 0.01, tests=20)
    assert alone.more_items is not None
    assert of_many.more_items is not None
    assert of_many.more_items > alone.more_items


def test_items_that_all_differ_alike_decide_nothing() -> None:
    """Every answer right against every answer wrong once divided by a p-value of zero."""
    found = Effect(1.0, None, 0.0, 0.0, 1, 7.0)
    assert 0 < found.p_value < 1e-6
    assert verdict(found, found.p_value, margin=0.01) == "undecided"
