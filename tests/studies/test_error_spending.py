"""Levels of several looks: they err together as often as one look may."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.studies.error_spending import levels, spent

Draws = np.random.Generator


def times(seeds: tuple[int, ...]) -> tuple[float, ...]:
    """When looks at so many seeds take place."""
    return tuple(count / seeds[-1] for count in seeds)


def p_values(seeds: tuple[int, ...], tries: int, draws: Draws) -> np.ndarray:
    """Of Student's test of the first values of pure noise, shape (tries, looks)."""
    values = draws.standard_normal((tries, seeds[-1]))
    total, squares = values.cumsum(axis=1), (values**2).cumsum(axis=1)
    found = []
    for count in seeds:
        mean = total[:, count - 1] / count
        variance = (squares[:, count - 1] - count * mean**2) / (count - 1)
        found.append(2 * stats.t.sf(np.abs(mean) / np.sqrt(variance / count), count - 1))
    return np.column_stack(found)


def test_spending_is_that_of_the_published_function() -> None:
    """Lan and DeMets (1983), O'Brien-Fleming-like; the first of five even looks at 5 %."""
    assert stats.norm.isf(spent(0.05, 0.2) / 2) == pytest.approx(4.877, abs=1e-3)
    assert spent(0.05, 0.0) == 0.0
    assert spent(0.05, 1.0) == pytest.approx(0.05)


def test_one_look_may_use_all_of_the_error() -> None:
    for alpha in (0.05, 0.05 / 27, 1e-5):
        assert levels(alpha, (1.0,), (5,)) == pytest.approx((alpha,), rel=1e-3)


def test_with_many_seeds_bounds_are_those_of_normal_values() -> None:
    """Two looks at half and all of the data, 5 %: bounds of Lan and DeMets (1983)."""
    early, late = levels(0.05, (0.5, 1.0), (30, 60))
    assert stats.norm.isf(early / 2) == pytest.approx(2.963, abs=0.01)
    assert stats.norm.isf(late / 2) == pytest.approx(1.969, abs=0.02)


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 7])
@pytest.mark.parametrize("seeds", [(2, 3, 4, 5), (3, 5, 8), (2, 4)])
def test_looks_at_few_seeds_err_as_often_as_they_may(seeds: tuple[int, ...], alpha: float) -> None:
    """Normal boundaries erred 1.14 times as often."""
    tries = 100_000
    found = p_values(seeds, tries, np.random.default_rng(1))
    wrong = (found < np.array(levels(alpha, times(seeds), seeds))).any(axis=1).mean()
    assert wrong == pytest.approx(alpha, abs=3 * np.sqrt(alpha / tries))
    assert (found < alpha).any(axis=1).mean() > 1.3 * alpha


def test_looks_that_share_their_noise_err_less() -> None:
    """Where items are the noise, or spreads are known from other variants."""
    seeds, tries, draws = (2, 3, 4, 5), 50_000, np.random.default_rng(2)
    found = levels(0.05, times(seeds), seeds)
    shared = draws.standard_normal((tries, 1)) * np.sqrt(0.5)
    own = draws.standard_normal((tries, 5)).cumsum(axis=1)[:, 1:] / np.array(seeds)
    spread = np.sqrt(0.5 + 1 / np.array(seeds))
    assert ((2 * stats.norm.sf(np.abs(shared + own) / spread)) < found).any(axis=1).mean() < 0.045
    known = 2 * stats.norm.sf(np.abs(own) * np.sqrt(seeds))
    assert (known < found).any(axis=1).mean() < 0.0475


def test_a_pair_that_is_missing_is_reckoned_with() -> None:
    """One pair has no spread; without a new pair a look spends on the same value."""
    seeds, tries = (1, 2, 3, 3), 200_000
    found = levels(0.05, (0.25, 0.5, 0.75, 1.0), seeds)
    assert found[0] == 0.0
    p = p_values((2, 3, 3), tries, np.random.default_rng(3))
    wrong = (p < np.array(found[1:])).any(axis=1).mean()
    assert wrong == pytest.approx(0.05, abs=3 * np.sqrt(0.05 / tries) + 5e-4)


def test_a_look_knows_only_what_came_before_it() -> None:
    full = levels(0.01, times((2, 3, 4, 5)), (2, 3, 4, 5))
    assert levels(0.01, times((2, 3, 4, 5)), (2, 3, 3, 3))[:2] == full[:2]
