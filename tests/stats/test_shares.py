"""Paired shares: Tango's interval, McNemar's mid-p value, Wilson's interval, design effects."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

from harness.report.statistics.noise import Noise
from harness.report.statistics.shares import (
    Discordant,
    mcnemar_mid_p,
    tango_score,
    wilson,
    with_design_effect,
)


def plain(up: int, down: int, n: int) -> Discordant:
    """Independent items, so many that Student's t is the normal distribution."""
    spread = (up + down) / n - ((up - down) / n) ** 2
    return Discordant(up / n, down / n, n, Noise(max(spread, 1e-12) / n, 1e9))


@pytest.mark.parametrize(("up", "down", "n"), [(9, 3, 40), (1, 0, 24), (20, 22, 300), (5, 0, 60)])
@pytest.mark.parametrize("delta", [-0.1, -0.02, 0.05, 0.2])
def test_the_score_uses_the_restricted_maximum_likelihood(
    up: int, down: int, n: int, delta: float
) -> None:
    """Tango's closed form against a numerical maximum of the trinomial likelihood."""

    def loss(share: float) -> float:
        chances = (share + delta, share, 1 - 2 * share - delta)
        if min(chances) <= 0:
            return math.inf
        counts = (up, down, n - up - down)
        return -sum(k * math.log(p) for k, p in zip(counts, chances, strict=True))

    low, high = max(0.0, -delta) + 1e-12, (1 - delta) / 2 - 1e-12
    best = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded").x
    expected = (up - down - n * delta) / math.sqrt(n * (2 * best + delta * (1 - delta)))
    assert tango_score(up, down, n, delta) == pytest.approx(expected, rel=2e-3)


def test_no_discordant_item_is_no_certainty() -> None:
    """24 items without a difference leave room for 14 points either way."""
    low, high = plain(0, 0, 24).interval()
    z = stats.norm.ppf(0.975)
    assert (low, high) == pytest.approx((-(z**2) / (24 + z**2), z**2 / (24 + z**2)))
    assert plain(0, 0, 24).p_value() == 1.0


@pytest.mark.parametrize(("up", "down"), [(8, 2), (6, 0), (15, 14), (0, 3)])
def test_the_mid_p_value_is_mcnemars(up: int, down: int) -> None:
    n = up + down
    exact = stats.binomtest(min(up, down), n).pvalue
    assert mcnemar_mid_p(up, down) == pytest.approx(
        min(1.0, exact - stats.binom.pmf(min(up, down), n, 0.5)), abs=1e-9
    )


def test_both_directions_mirror_each_other() -> None:
    found = plain(9, 3, 40)
    low, high = found.interval()
    assert found.reversed().interval() == pytest.approx((-high, -low))
    assert found.reversed().p_value() == pytest.approx(found.p_value())


def test_wilson_is_scipys() -> None:
    expected = stats.binomtest(5, 24).proportion_ci(method="wilson")
    assert wilson(5 / 24, 24, stats.norm.ppf(0.975)) == pytest.approx((expected.low, expected.high))
    low, high = wilson(1.0, 2, stats.norm.ppf(0.975))
    assert 0 < low < high == 1.0


def test_items_that_go_together_are_worth_one() -> None:
    """Every cluster of four answers alike: 200 items are worth 50."""
    signs = np.where(np.random.default_rng(1).random(50) < 0.5, 1.0, -1.0)
    signs -= signs.mean()
    sizes = np.full(50, 4.0)
    n, _ = with_design_effect(Noise(1.0, 49.0), 4 * signs, sizes, 1.0, 1.0)
    assert n == pytest.approx(50, rel=0.1)


def test_independent_items_are_worth_themselves() -> None:
    draws = np.random.default_rng(2)
    answers = draws.choice([-1.0, 0.0, 1.0], size=(4000, 4))
    answers -= answers.mean()
    n, _ = with_design_effect(
        Noise(1.0, 3999.0), answers.sum(axis=1), np.full(4000, 4.0), float(answers.var()), 1.0
    )
    assert n == pytest.approx(16_000, rel=0.1)


def test_clustering_that_cannot_be_seen_is_taken_as_complete() -> None:
    n, noise = with_design_effect(Noise(0.0, 9.0), np.zeros(10), np.full(10, 3.0), 0.0, 1.0)
    assert n == pytest.approx(10)
    assert noise.items > 0
