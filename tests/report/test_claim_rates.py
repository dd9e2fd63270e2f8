"""Rates: where a search of learning rates is lowest, and how sure that is."""

import math

import numpy as np
import pytest

from harness.report.claims.rates import lowest


def curve(*rates: float, best: float, bend: float = 0.02) -> dict[float, float]:
    """Losses of a parabola in the log of the rate."""
    return {rate: 1.7 + bend * math.log(rate / best) ** 2 for rate in rates}


@pytest.mark.parametrize("best", [3.1e-4, 5e-4, 8e-4])
@pytest.mark.parametrize("rates", [(8e-5, 2e-4, 5e-4, 1.25e-3, 3e-3), (1e-4, 4e-4, 7e-4, 4e-3)])
def test_the_lowest_point_of_a_parabola_is_found_between_rates(
    best: float, rates: tuple[float, ...]
) -> None:
    found = lowest(curve(*rates, best=best))
    assert found is not None
    assert math.exp(found.place) == pytest.approx(best, rel=1e-9)


def test_an_edge_or_a_run_that_failed_beside_the_best_says_nothing() -> None:
    assert lowest(curve(1e-4, 2e-4, 5e-4, best=9e-4)) is None
    losses = curve(1e-4, 2e-4, 5e-4, best=2e-4)
    assert lowest({**losses, 5e-4: math.inf}) is None
    assert lowest({**losses, 2e-3: math.inf}) is not None, "one that is no neighbour"


@pytest.mark.parametrize("rates", [(2e-4, 5e-4, 1.25e-3), (1e-4, 5e-4, 9e-4)])
def test_its_spread_is_what_noise_in_the_losses_does(rates: tuple[float, ...]) -> None:
    losses = curve(*rates, best=4.5e-4)
    noise = np.random.default_rng(5)
    deviation = 2e-4
    places = []
    for _ in range(4000):
        drawn = {rate: loss + deviation * noise.standard_normal() for rate, loss in losses.items()}
        found = lowest(drawn)
        assert found is not None
        places.append(found.place)
    exact = lowest(losses)
    assert exact is not None
    assert np.std(places) == pytest.approx(deviation * math.sqrt(exact.spread), rel=0.05)
