"""Rates: where a search of learning rates is lowest, and how sure that is."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.report.claims.rates import LOSS, Lowest, lowest, training_noise
from harness.report.rows import Row, make_rows
from harness.report.sides import read_runs
from tests.report.records import Made, write_runs


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


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """A base, a variant with three seeds, one with four of which one failed, one with one seed."""
    made = [Made("base"), Made("lora_dora")]
    made += [Made("lora_bf16", seed=seed) for seed in range(3)]
    made += [Made("qlora_nf4", seed=seed) for seed in range(3)]
    made.append(Made("qlora_nf4", seed=3, status="failed"))
    write_runs(tmp_path, made)
    return make_rows(read_runs(tmp_path)[0])


def with_losses(rows: list[Row], loss: Callable[[str, int], float]) -> Iterator[Row]:
    """The rows with ``loss(variant, seed)`` nats as their held-out loss."""
    for row in rows:
        runs = []
        for run in row.runs:
            record, found = run.record, LOSS.find(run.record)
            nats = loss(row.variant, record.plan.seed)
            scores = tuple(
                one.model_copy(update={"value": math.exp(nats)}) if one is found else one
                for one in record.scores
            )
            runs.append(replace(run, record=record.model_copy(update={"scores": scores})))
        yield replace(row, runs=tuple(runs))


def test_the_noise_of_a_training_is_that_within_variants(rows: list[Row]) -> None:
    losses = {"lora_bf16": (1.0, 1.1, 1.2), "qlora_nf4": (2.0, 2.0, 2.3, 9.0)}
    told = with_losses(rows, lambda variant, seed: losses.get(variant, (5.0,))[seed])
    variance, freedom = training_noise(told)
    assert freedom == 4, "a failure counts nothing, nor does one seed, nor what is not trained"
    assert variance == pytest.approx((0.02 + 0.06) / 4)


def test_one_seed_of_each_says_nothing_of_the_noise(rows: list[Row]) -> None:
    alone = [replace(row, runs=row.runs[:1]) for row in rows]
    assert training_noise(alone) == (0.0, 0)


def test_the_noise_of_a_training_is_estimated_without_bias(rows: list[Row]) -> None:
    """Over 300 draws, its mean is the variance and its own spread that of its freedom."""
    noise, deviation = np.random.default_rng(8), 0.003
    means = {"lora_bf16": 1.6, "qlora_nf4": 1.9}

    def drawn(variant: str, _seed: int) -> float:
        return means.get(variant, 3.0) + deviation * noise.standard_normal()

    found = [training_noise(with_losses(rows, drawn)) for _ in range(300)]
    (freedom,) = {freedom for _, freedom in found}
    ratios = np.array([variance for variance, _ in found]) / deviation**2
    error = math.sqrt(2 / freedom / len(ratios))
    assert abs(ratios.mean() - 1) < 4 * error
    assert ratios.var() == pytest.approx(2 / freedom, rel=0.4)
