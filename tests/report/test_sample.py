"""Sample: on which scale a score is compared, and which runs are paired."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.records.record import Score
from harness.report.pairing import Aligned
from harness.report.sample import Sample, Scale, make_sample, make_scale, round6

CLUSTERS = 12


def score(value: float, **changes: object) -> Score:
    fields = {
        "task": "t",
        "metric": "m",
        "stage": "after",
        "value": value,
        "standard_error": 0.1,
        "n": 10,
        "unit": "fraction",
        "direction": "higher",
    }
    return Score.model_validate(fields | changes)


def aligned(
    labels: tuple[str, ...], seeds: tuple[int, ...], means: tuple[float, ...], answers: bool = False
) -> Aligned:
    """Runs whose clusters hold two items each, with the same noise and different means."""
    random = np.random.default_rng(3)
    noise = random.normal(0, 0.05, (CLUSTERS, 1))
    numerator = 2 * (np.array(means)[None, :] + noise)
    right = None
    if answers:
        right = (random.random((2 * CLUSTERS, len(means))) < np.array(means)).astype(np.int8)
        numerator = right.reshape(CLUSTERS, 2, -1).sum(axis=1).astype(float)
    return Aligned(
        labels=labels,
        seeds=seeds,
        trains=tuple(label != "base" for label in labels),
        numerator=numerator,
        denominator=np.full((CLUSTERS, len(means)), 2.0),
        group=np.repeat(np.arange(CLUSTERS), 2),
        answers=right,
    )


SCALES = {
    "perplexity": make_scale(
        [score(40.0, transform="exp", unit="perplexity", direction="lower")], 0.01
    ),
    "bits": make_scale([score(0.9, unit="bits", direction="lower")], 0.01),
    "share": make_scale([score(0.4), score(0.6)], 0.01),
    "points": make_scale([score(40.0, unit="points"), score(60.0, unit="points")], 0.02),
    "signed": make_scale([score(-3.0, unit="margin"), score(5.0, unit="margin")], 0.01),
}


def test_losses_and_other_positive_scores_to_be_low_are_compared_by_ratio() -> None:
    for name in ("perplexity", "bits"):
        scale = SCALES[name]
        assert scale.relative, name
        assert scale.sign == 1
        assert scale.bound == pytest.approx(math.log(1.01))
        assert scale.difference(math.log(1.1)) == pytest.approx(0.1)
        assert scale.value(math.log(40)) == pytest.approx(40)
    assert SCALES["bits"].logged
    assert not SCALES["perplexity"].logged, "its ratio of sums is a logarithm already"


def test_shares_are_compared_by_difference_and_end_at_one() -> None:
    scale = SCALES["share"]
    assert (scale.share, scale.relative, scale.ceiling) == (True, False, 1.0)
    assert scale.sign == -1, "less is worse"
    assert scale.bound == 0.01
    assert scale.difference(-0.02) == -0.02


def test_points_end_at_a_hundred_and_their_margin_is_a_share_of_their_median() -> None:
    scale = SCALES["points"]
    assert (scale.share, scale.ceiling) == (False, 100.0)
    assert scale.margin == pytest.approx(0.02 * 50)


def test_a_margin_by_an_anchor_stays_when_runs_are_added() -> None:
    first, later = score(40.0, unit="points"), score(60.0, unit="points")
    alone, both = (make_scale(found, 0.02, first) for found in ([first], [first, later]))
    assert alone.margin == both.margin == pytest.approx(0.02 * 40)


def test_signed_scores_have_no_ceiling() -> None:
    scale = SCALES["signed"]
    assert (scale.relative, scale.share, scale.ceiling) == (False, False, None)
    assert scale.margin == pytest.approx(0.01)


def test_an_interval_of_any_width_can_be_told() -> None:
    assert math.isfinite(SCALES["perplexity"].difference(1e6))


def test_values_and_influences_are_those_of_a_ratio_of_sums() -> None:
    found = make_sample(aligned(("base",), (0,), (2.0,)), SCALES["bits"])
    ratio = found.aligned.numerator.sum() / found.aligned.denominator.sum()
    assert found.values[0] == pytest.approx(math.log(ratio))
    np.testing.assert_allclose(found.influence.sum(axis=0), 0, atol=1e-15)


@pytest.fixture
def trained() -> Sample:
    """Two variants on seeds that overlap, and an untrained base that was scored twice."""
    labels = ("base", "base", "a", "a", "a", "b", "b")
    seeds = (0, 1, 0, 1, 2, 1, 2)
    means = (2.0, 2.0, 1.8, 1.9, 1.7, 1.6, 1.5)
    return make_sample(aligned(labels, seeds, means), SCALES["signed"])


def test_a_row_that_is_not_trained_counts_once(trained: Sample) -> None:
    assert trained.labels == ("base", "a", "b")
    assert trained.columns("base") == [0]
    assert trained.columns("a") == [2, 3, 4]
    assert trained.columns("unknown") == []
    assert trained.trains("a")
    assert not trained.trains("base")
    assert not trained.trains("unknown")
    assert trained.seeds("b") == (1, 2)


def test_rows_are_paired_on_common_seeds(trained: Sample) -> None:
    found = trained.paired("b", "a")
    assert found is not None
    assert found.seeds == 2
    assert found.estimate == pytest.approx((1.6 - 1.9 + 1.5 - 1.7) / 2)
    assert not found.single


def test_an_untrained_row_is_paired_with_every_seed(trained: Sample) -> None:
    for own, other, sign in (("a", "base", 1), ("base", "a", -1)):
        found = trained.paired(own, other)
        assert found is not None
        assert found.seeds == 3
        assert found.estimate == pytest.approx(sign * (1.8 - 2.0))


def test_without_a_common_seed_there_is_no_pair() -> None:
    sample = make_sample(aligned(("a", "b"), (0, 1), (2.0, 1.9)), SCALES["signed"])
    assert sample.paired("a", "b") is None
    assert sample.paired("a", "unknown") is None


def test_one_trained_run_on_a_side_is_a_single_training() -> None:
    sample = make_sample(aligned(("base", "a"), (0, 0), (2.0, 1.9)), SCALES["signed"])
    found = sample.paired("a", "base")
    assert found is not None
    assert found.single
    assert found.obstacle == "one training"


def test_noise_that_both_sides_share_cancels(trained: Sample) -> None:
    paired = trained.paired("b", "a")
    assert paired is not None
    assert paired.noise.items < 1e-12
    assert trained.own("a").noise.items > 1e-5


def test_right_answers_are_compared_by_the_items_on_which_sides_differ() -> None:
    labels, means = ("base", "a", "a"), (0.4, 0.7, 0.7)
    sample = make_sample(aligned(labels, (0, 0, 1), means, answers=True), SCALES["share"])
    found = sample.paired("a", "base")
    assert found is not None
    assert found.discordant is not None
    assert found.discordant.estimate == pytest.approx(found.estimate)
    share = sample.own_share("a")
    assert share is not None
    worth, noise = share
    assert worth > 0
    assert noise.items > 0


def test_losses_have_no_share_of_right_answers(trained: Sample) -> None:
    assert trained.own_share("a") is None


def test_what_is_shown_has_six_digits() -> None:
    assert round6(1.23456789) == 1.23457
    assert round6(1234567.8) == 1234570.0
    assert isinstance(SCALES["share"], Scale)
