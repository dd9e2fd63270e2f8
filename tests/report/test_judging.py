"""Judging: which comparisons are corrected together, and how a difference is told."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from harness.report.judging import Multiplicity, adjust, compare_all, make_difference
from harness.report.pairing import Aligned
from harness.report.sample import Sample, Scale, make_sample
from harness.report.statistics.multiplicity import holm

CLUSTERS = 30
LOSS = Scale("exp", True, "lower", "per token", 0.01)
SHARE = Scale("identity", False, "higher", "fraction", 0.01, share=True, ceiling=1.0)


def sample(values: dict[str, float], seeds: dict[str, int], scale: Scale = LOSS) -> Sample:
    """Rows of so many seeds with these values, and a little noise of seeds and of items."""
    random = np.random.default_rng(8)
    items = 0.2 * random.standard_normal(CLUSTERS)
    labels, numbers, columns = [], [], []
    for label, value in values.items():
        for seed in range(seeds[label]):
            labels.append(label)
            numbers.append(seed)
            own = value + 0.002 * random.standard_normal()
            columns.append(own + items + 0.004 * random.standard_normal(CLUSTERS))
    aligned = Aligned(
        labels=tuple(labels),
        seeds=tuple(numbers),
        trains=tuple(label != "base" for label in labels),
        numerator=np.column_stack(columns),
        denominator=np.ones((CLUSTERS, len(labels))),
        group=np.arange(CLUSTERS),
    )
    return make_sample(aligned, scale)


def test_every_row_is_compared_with_the_reference_and_not_with_itself() -> None:
    found = compare_all(sample({"a": 2.0, "b": 2.1, "base": 2.5}, {"a": 3, "b": 3, "base": 1}), "a")
    assert list(found) == ["b", "base"]
    assert found["b"].estimate == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("reference", [None, "unknown"])
def test_without_a_reference_nothing_is_compared(reference: str | None) -> None:
    assert compare_all(sample({"a": 2.0, "b": 2.1}, {"a": 2, "b": 2}), reference) == {}


def test_rows_without_a_common_seed_are_left_out() -> None:
    made = sample({"a": 2.0, "b": 2.1, "c": 2.2}, {"a": 2, "b": 2, "c": 1})
    assert "c" in compare_all(made, "a"), "its seed 0 is common"


def test_single_trainings_are_a_family_of_their_own() -> None:
    effects = compare_all(sample({"a": 2.0, "b": 2.3, "c": 2.3}, {"a": 3, "b": 3, "c": 1}), "a")
    adjusted = adjust(effects, dict.fromkeys(effects, 0.01), holm)
    assert adjusted["b"].difference == effects["b"].p_value, "alone among the variants"
    assert adjusted["c"].difference == effects["c"].p_value, "alone among the trainings"


def test_equivalence_is_corrected_for_the_number_of_variants() -> None:
    """One within the margin by its own interval alone is undecided among many."""
    seeds = {"a": 4, "near": 4} | {f"far{number}": 4 for number in range(10)}
    values = dict.fromkeys(seeds, 2.5) | {"a": 2.0, "near": 2.0}
    effects = compare_all(sample(values, seeds), "a")
    low, high = effects["near"].interval()
    scale = replace(LOSS, margin=math.expm1(1.02 * max(-low, high)))
    alone, among = (
        adjust(family, dict.fromkeys(family, scale.bound), holm)["near"]
        for family in ({"near": effects["near"]}, effects)
    )
    assert among.equivalence == pytest.approx(11 * alone.equivalence / 2)
    assert make_difference("near", effects["near"], alone, scale).verdict == "equivalent"
    assert make_difference("near", effects["near"], among, scale).verdict == "undecided"


def test_a_difference_is_told_as_a_relative_change_of_a_loss() -> None:
    effect = compare_all(sample({"a": 2.0, "b": 2.1}, {"a": 3, "b": 3}), "a")["b"]
    found = make_difference("b", effect, effect.p_value, LOSS)
    assert found.verdict == "worse"
    assert found.estimate == pytest.approx(math.expm1(effect.estimate), rel=1e-5)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.estimate < found.high
    assert found.needed is None, "it is decided"
    assert found.smallest is not None
    assert found.smallest > 0


def test_more_is_better_where_the_score_says_so() -> None:
    effect = compare_all(sample({"a": 0.4, "b": 0.5}, {"a": 3, "b": 3}, SHARE), "a")["b"]
    found = make_difference("b", effect, effect.p_value, SHARE)
    assert found.verdict == "better"
    assert found.estimate == pytest.approx(0.1, abs=0.01)
    assert found.worse_by.estimate == pytest.approx(-0.1, abs=0.01)


def test_what_is_undecided_says_what_would_decide_it() -> None:
    effect = compare_all(sample({"a": 2.0, "b": 2.004}, {"a": 3, "b": 3}), "a")["b"]
    tight = Scale("exp", True, "lower", "per token", 0.0005)
    found = make_difference("b", effect, 1.0, tight)
    assert found.verdict == "undecided"
    assert found.needed is not None


def test_one_training_has_an_estimate_and_no_interval() -> None:
    effect = compare_all(sample({"a": 2.0, "b": 2.3}, {"a": 1, "b": 1}), "a")["b"]
    found = make_difference("b", effect, effect.p_value, LOSS)
    assert (found.low, found.high, found.p_value, found.smallest) == (None,) * 4
    assert found.obstacle == "one training"
    assert found.verdict == "differs"


def test_many_comparisons_can_show_only_larger_differences() -> None:
    effect = compare_all(sample({"a": 2.0, "b": 2.1}, {"a": 3, "b": 3}), "a")["b"]
    alone = make_difference("b", effect, effect.p_value, LOSS)
    among = make_difference("b", effect, effect.p_value, LOSS, Multiplicity(20))
    assert alone.smallest is not None
    assert among.smallest is not None
    assert among.smallest > alone.smallest
    assert (among.low, among.high) == (alone.low, alone.high), "intervals are each row's own"
