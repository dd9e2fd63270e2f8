"""Verdicts, corrections, power: what may be said, and what may not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.report.statistics.effects import Effect
from harness.report.statistics.multiplicity import benjamini_hochberg, holm
from harness.report.statistics.noise import Noise, make_noise
from harness.report.statistics.power import needed, smallest_difference
from harness.report.statistics.shares import Discordant
from harness.report.statistics.verdicts import verdict


def items_only(estimate: float, error: float, **changes: object) -> Effect:
    return Effect(estimate, Noise(error**2, 100.0), clusters=101, effective=101.0, **changes)  # type: ignore[arg-type]


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
    found = items_only(estimate, error)
    adjusted = found.p_value if expected != "undecided" else 1.0
    assert verdict(found, adjusted, found.equivalence_p(0.01)) == expected


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.001])
@pytest.mark.parametrize("up", [None, 0.02, 0.05])
def test_equivalence_has_the_p_value_at_which_its_interval_fits(
    alpha: float, up: float | None
) -> None:
    noise = Noise(2e-5, 40.0, 1e-5, 2.0, 4e-6)
    answers = None if up is None else Discordant(up, 0.02, 2000.0, noise)
    found = Effect(0.0 if up is None else up - 0.02, noise, 3, 41, 41.0, discordant=answers)
    low, high = found.interval(alpha)
    edge = max(-low, high)
    assert found.equivalence_p(1.001 * edge) < alpha < found.equivalence_p(0.999 * edge)
    assert found.equivalence_p(abs(found.estimate)) == 1.0


def test_one_training_says_nothing_about_the_variant() -> None:
    differs = items_only(0.05, 0.001, single=True)
    assert verdict(differs, differs.p_value, differs.equivalence_p(0.01)) == "differs"
    alike = items_only(0.0, 0.001, single=True)
    assert verdict(alike, alike.p_value, alike.equivalence_p(0.01)) == "undecided", (
        "not even equivalence"
    )


def test_few_or_lopsided_groups_of_items_decide_nothing() -> None:
    few = Effect(0.5, Noise(1e-6, 6.0), clusters=7, effective=7.0)
    lopsided = Effect(0.5, Noise(1e-6, 2.0), clusters=30, effective=2.0)
    for found in (few, lopsided):
        assert verdict(found, 0.0, found.equivalence_p(0.01)) == "undecided"


def test_rounding_errors_are_no_certainty() -> None:
    """24 losses of 0.1 against 24 of 0.4: the noise is that of floating-point sums."""
    ones = np.full(24, 0.1)
    above = np.add.reduceat(np.repeat(ones, 3), np.arange(0, 72, 3)) / 3
    influence = ((above - above.mean()) - (np.full(24, 0.4) - 0.4) + 1e-17)[:, None] / 24
    found = Effect(
        estimate=-0.3,
        noise=make_noise(np.array([-0.3]), influence, np.ones(24)),
        clusters=24,
        effective=24.0,
        magnitude=0.4,
    )
    assert found.variance > 0, "the case is about a variance that is tiny, not zero"
    assert found.obstacle == "no noise"
    assert verdict(found.negated(), found.p_value, found.equivalence_p(0.01)) == "undecided"


def test_equal_losses_are_equal_models_and_equal_answers_are_not() -> None:
    same = items_only(0.0, 0.0, magnitude=2.0)
    assert verdict(same, 1.0, same.equivalence_p(0.01), exact_loss=True) == "equivalent"
    assert verdict(same, 1.0, same.equivalence_p(0.01)) == "undecided"


def test_a_study_that_looks_often_spends_less() -> None:
    found = items_only(0.024, 0.01)
    assert verdict(found, found.p_value, found.equivalence_p(0.001)) == "worse"
    assert verdict(found, found.p_value, found.equivalence_p(0.001), alpha=0.01) == "undecided"


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.9]) == [1.0, 1.0]


def test_benjamini_hochberg_is_scipys() -> None:
    p = np.random.default_rng(3).random(40) ** 2
    assert benjamini_hochberg(list(p)) == pytest.approx(stats.false_discovery_control(p))
    assert benjamini_hochberg([]) == []


def test_the_smallest_difference_shown_is_shown_in_80_of_100_tries() -> None:
    error, freedom = 0.01, 20.0
    found = Effect(0.0, Noise(error**2, freedom), clusters=21, effective=21.0)
    shift = smallest_difference(found) / error
    power = stats.nct.sf(stats.t.ppf(0.975, freedom), freedom, shift)
    assert power == pytest.approx(0.8, abs=0.01)


def test_it_does_not_depend_on_what_was_observed() -> None:
    assert smallest_difference(items_only(0.0, 0.01)) == smallest_difference(items_only(0.5, 0.01))
    assert needed(items_only(0.0, 0.01), 0.01) == needed(items_only(0.5, 0.01), 0.01)


def test_the_needed_items_do_settle_the_margin() -> None:
    found = items_only(0.0, 0.01)
    more = needed(found, margin=0.01).more_items
    # ((1.96 + 1.28) * 0.01 / 0.01)^2 = 10.5 times the items
    assert more == pytest.approx(10.6, abs=0.2)
    error = 0.01 / math.sqrt(more or 1)
    reach = 0.01 - stats.t.ppf(0.975, 100 * (more or 1)) * error
    assert 2 * stats.norm.cdf(reach / error) - 1 == pytest.approx(0.8, abs=0.01)


def test_items_cannot_cure_the_noise_between_seeds() -> None:
    noise = Noise(items=1e-5, item_freedom=100.0, seeds=2e-4, seed_freedom=2.0, both=1e-6)
    found = Effect(0.0, noise, seeds=3, clusters=101, effective=101.0)
    wanted = needed(found, margin=0.02)
    assert wanted.more_items is None
    assert wanted.seeds is not None
    assert 3 < wanted.seeds < 30
    assert needed(items_only(0.0, 0.001, single=True), margin=0.01).seeds is None
