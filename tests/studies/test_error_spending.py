"""Levels of several looks: they err together as often as one look may."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from harness.studies.error_spending import levels, spent

FIVE = (0.2, 0.4, 0.6, 0.8, 1.0)


def test_bounds_are_those_of_the_published_table() -> None:
    """Five even looks at 5 %, two-sided: Lan and DeMets (1983), O'Brien-Fleming-like spending."""
    bounds = [float(norm.isf(level / 2)) for level in levels(0.05, FIVE)]
    assert bounds == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=1e-3)


def test_one_look_may_use_all_of_the_error() -> None:
    assert levels(0.05, (1.0,)) == pytest.approx((0.05,))
    assert spent(0.05, 0.0) == 0.0
    assert spent(0.05, 1.0) == pytest.approx(0.05)


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 7])
def test_looks_at_pure_noise_err_as_often_as_they_may(alpha: float) -> None:
    draws = np.random.default_rng(1)
    times = (0.4, 0.6, 0.8, 1.0)
    steps = np.diff((0.0, *times))
    sums = np.cumsum(draws.standard_normal((200_000, 4)) * np.sqrt(steps), axis=1)
    p_values = 2 * norm.sf(np.abs(sums) / np.sqrt(times))
    wrong = (p_values < np.array(levels(alpha, times))).any(axis=1).mean()
    assert wrong == pytest.approx(alpha, abs=3 * np.sqrt(alpha / 200_000))
    naive = (p_values < alpha).any(axis=1).mean()
    assert naive > 1.8 * alpha
