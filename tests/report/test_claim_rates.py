"""Rates: where a search of learning rates is lowest, and how sure that is."""

import math

import numpy as np
import pytest

from harness.report.claims.rates import Lowest, lowest


def curve(*rates: float, best: float, bend: float = 0.02) -> dict[float, float]:
    """Losses of a parabola in the log of the rate."""
    return {rate: 1.7 + bend * math.log(rate / best) ** 2 for rate in rates}


@pytest.mark.parametrize("best", [3.1e-4, 5e-4, 8e-4])
@pytest.mark.parametrize("rates", [(8e-5, 2e-4, 5e-4, 1.25e-3, 3e-3), (1e-4, 4e-4, 7e-4, 4e-3)])
def test_the_lowest_point_of_a_parabola_is_found_between_rates(
    best: float, rates: tuple[float, ...]
) -> None:
    found = lowest(curve(*rates, best=best))
    assert isinstance(found, Lowest)
    assert math.exp(found.place) == pytest.approx(best, rel=1e-9)
    assert found.apart == pytest.approx(0.0, abs=1e-6), "the cubic through a parabola is it"


def test_what_is_missing_is_said_where_the_lowest_point_is_not_known() -> None:
    assert lowest(curve(5e-5, 1e-4, 2e-4, 5e-4, best=9e-4)) == "rates beyond the edge"
    losses = curve(5e-5, 1e-4, 2e-4, 5e-4, best=2e-4)
    assert lowest({**losses, 5e-4: math.inf}) == "a rate between 0.0002 and 0.0005"
    assert isinstance(lowest({**losses, 2e-3: math.inf}), Lowest), "one that is no neighbour"


def test_a_curve_that_is_no_parabola_is_less_sure() -> None:
    """Steep towards high rates, as losses are; the truth is the lowest point of the curve."""
    best = 4e-4
    losses = {
        rate: 1.7 + 0.01 * (math.exp(x) - x - 1)
        for rate in (8e-5, 2e-4, 5e-4, 1.25e-3, 3.1e-3)
        for x in [math.log(rate / best)]
    }
    found = lowest(losses)
    assert isinstance(found, Lowest)
    error = abs(found.place - math.log(best))
    assert 0.03 < error < 2 * found.apart


@pytest.mark.parametrize("rates", [(2e-4, 5e-4, 1.25e-3), (1e-4, 5e-4, 9e-4)])
def test_its_spread_is_what_noise_in_the_losses_does(rates: tuple[float, ...]) -> None:
    losses = curve(*rates, 5e-3, best=4.5e-4)
    noise = np.random.default_rng(5)
    deviation = 2e-4
    places = []
    for _ in range(4000):
        drawn = {rate: loss + deviation * noise.standard_normal() for rate, loss in losses.items()}
        found = lowest(drawn)
        assert isinstance(found, Lowest)
        places.append(found.place)
    exact = lowest(losses)
    assert isinstance(exact, Lowest)
    assert np.std(places) == pytest.approx(deviation * math.sqrt(exact.spread), rel=0.05)
