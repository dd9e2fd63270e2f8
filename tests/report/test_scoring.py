"""Scoring: values with intervals that they can have, and differences laid around them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.report.judging import PValues
from harness.report.pairing import ScoreKey
from harness.report.rows import make_rows
from harness.report.scoring import Scoring, make_scoring, with_differences
from harness.report.sides import read_runs
from tests.report.records import Made, write_runs

PERPLEXITY = ScoreKey("held_out", "perplexity", "training")
CHOICE = ScoreKey("oasst_choice", "acc", "training")


def scored(
    root: Path, *runs: Made, key: ScoreKey = PERPLEXITY, reference: str | None = "lora_bf16"
) -> Scoring:
    write_runs(root, runs)
    found, _ = read_runs(root)
    return make_scoring(make_rows(found), key, reference, 0.01)


def three(variant: str, log_ratio: float, **changes: object) -> list[Made]:
    return [Made(variant, seed=s, log_ratio=log_ratio, **changes) for s in range(3)]  # type: ignore[arg-type]


def test_losses_are_ordered_upwards_and_shares_downwards(tmp_path: Path) -> None:
    runs = [Made("lora_bf16", log_ratio=-0.8), Made("qlora_nf4", log_ratio=0.8)]
    assert scored(tmp_path, *runs).ordered() == ["lora_bf16", "qlora_nf4"]
    shares = scored(tmp_path, *runs, key=CHOICE)
    assert shares.values["lora_bf16"].value > shares.values["qlora_nf4"].value
    assert shares.ordered() == ["lora_bf16", "qlora_nf4"]


def test_a_value_tells_the_noise_of_seeds_from_that_of_items(tmp_path: Path) -> None:
    found = scored(tmp_path, *three("lora_bf16", -0.2), Made("base"))
    trained, base = found.values["lora_bf16"], found.values["base"]
    assert trained.seeds == 3
    assert trained.seed_sd is not None
    assert trained.item_error is not None
    assert trained.standard_error is not None
    assert trained.standard_error >= trained.item_error
    assert base.seed_sd is None
    assert (found.items, found.clusters) == (84, 28)


@pytest.mark.parametrize("ratio", [-2.0, 2.0])
def test_shares_near_an_end_keep_their_interval_within_it(tmp_path: Path, ratio: float) -> None:
    value = scored(tmp_path, *three("lora_bf16", ratio), key=CHOICE).values["lora_bf16"]
    assert value.low is not None
    assert value.high is not None
    assert 0.0 <= value.low <= value.value <= value.high <= 1.0


def test_few_groups_of_items_give_a_value_and_no_interval(tmp_path: Path) -> None:
    value = scored(tmp_path, Made("lora_bf16", trees=5)).values["lora_bf16"]
    assert (value.low, value.high, value.standard_error) == (None, None, None)
    assert value.n == 15


def test_without_a_reference_nothing_is_compared(tmp_path: Path) -> None:
    found = scored(tmp_path, *three("lora_bf16", 0), *three("qlora_nf4", 0.1), reference=None)
    assert found.effects == {}
    assert found.differences == {}


def test_a_difference_is_laid_around_the_row_s_value(tmp_path: Path) -> None:
    found = scored(tmp_path, *three("lora_bf16", -0.2), *three("qlora_nf4", 0.1))
    low, high = found.compared_interval("qlora_nf4")
    value = found.values["qlora_nf4"]
    assert low is not None
    assert high is not None
    assert low < value.value < high
    assert value.high is not None
    assert value.low is not None
    assert high - low < value.high - value.low, "what both share has gone"
    assert found.compared_interval("lora_bf16") == (None, None), "the reference has none"


def test_shares_are_laid_around_by_difference(tmp_path: Path) -> None:
    runs = [*three("lora_bf16", -0.8), *three("qlora_nf4", 0.8)]
    found = scored(tmp_path, *runs, key=CHOICE)
    low, high = found.compared_interval("qlora_nf4")
    difference = found.differences["qlora_nf4"]
    assert low is not None
    assert high is not None
    assert difference.low is not None
    assert difference.high is not None
    assert high - low == pytest.approx(difference.high - difference.low, abs=1e-5)


def test_a_row_without_the_score_has_no_value(tmp_path: Path) -> None:
    key = ScoreKey("generations", "rouge_l", "training")
    found = scored(tmp_path, Made("lora_bf16"), Made("base", answers=True), key=key)
    assert list(found.values) == ["base"]


def test_stricter_errors_make_wider_intervals_and_fewer_verdicts(tmp_path: Path) -> None:
    found = scored(tmp_path, *three("lora_bf16", -0.2), *three("qlora_nf4", -0.1))
    strict = with_differences(found, {"qlora_nf4": PValues(0.01, 1.0)}, alpha=0.0001)
    usual, narrow = found.differences["qlora_nf4"], strict.differences["qlora_nf4"]
    assert usual.verdict == "worse"
    assert narrow.verdict != "worse"
    assert usual.low is not None
    assert narrow.low is not None
    assert narrow.low < usual.low
