"""Moderation of seed variances: those of a group inform each other, a far larger one stays."""

from __future__ import annotations

import numpy as np
import pytest

from harness.report.statistics.moderation import moderate
from harness.report.statistics.noise import Noise
from tests.stats.bound import errors_and_power, most_power, rules


def group(*variances: float, seeds: int = 3) -> list[Noise]:
    return [Noise(1e-9, 50.0, variance / seeds, seeds - 1.0, 0.0) for variance in variances]


def test_small_variances_are_raised_and_large_ones_kept() -> None:
    before = group(0.01, 1.0, 1.2, 0.9, 30.0)
    after = moderate(before, [3] * 5, correlated=False)
    assert (after[0].seeds or 0) > 3 * (before[0].seeds or 0)
    assert after[0].seed_freedom > 2
    assert after[4] == before[4], "a variant that is noisier keeps its noise and its freedom"
    for old, new in zip(before[:4], after[:4], strict=True):
        assert (new.seeds or 0) >= 0.6 * (old.seeds or 0), "one a little larger is hardly lowered"


def test_equal_variances_are_worth_more_together_but_not_more_than_they_hold() -> None:
    variances = 1 + 1e-4 * np.arange(6)
    alone = moderate(group(*variances), [3] * 6, correlated=False)
    sharing = moderate(group(*variances), [3] * 6, correlated=True)
    assert max(noise.seed_freedom for noise in alone) == pytest.approx(12)
    assert max(noise.seed_freedom for noise in sharing) == pytest.approx(4 * 2 * 6 / 9)


def test_two_seeds_one_comparison_and_untrained_rows_are_left_alone() -> None:
    two = group(0.01, 1.0, 1.0, seeds=2)
    assert moderate(two, [2] * 3, correlated=True) == two
    one = group(0.01)
    assert moderate(one, [3], correlated=True) == one
    untrained = [Noise(1.0, 20.0), *group(0.01, 1.0)]
    assert moderate(untrained, [1, 3, 3], correlated=True)[0] == untrained[0]


def test_the_prior_is_found_again() -> None:
    """Many variances drawn from the prior of the model: moderation is that of its parameters."""
    draws = np.random.default_rng(8)
    weight, scale, freedom = 8.0, 2.0, 4.0
    true = scale * weight / draws.chisquare(weight, 4000)
    seen = true * draws.chisquare(freedom, 4000) / freedom
    after = moderate(group(*seen, seeds=5), [5] * 4000, correlated=False)
    moderated = [
        (noise.seeds or 0) * 5 / ((weight * scale + freedom * own) / (weight + freedom))
        for noise, own in zip(after, seen, strict=True)
        if abs((noise.seeds or 0) * 5 / own - 1) > 1e-4
    ]
    assert np.median(moderated) == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("freedom", [2, 4])
def test_no_rule_that_holds_for_noisier_variants_finds_much_more(freedom: int) -> None:
    """The power that moderation gives up against pooling is the price of that, not of the rule."""
    errors, power = errors_and_power(rules(freedom)["moderated"], freedom, 100_000, seed=4)
    assert max(errors) <= 0.07, "coverage of 93 % whatever the ratio"
    assert power >= most_power(freedom, [0.05] * 4) - 0.05
    _, raised_only = errors_and_power(rules(freedom)["raised only"], freedom, 100_000, seed=4)
    assert power > raised_only
