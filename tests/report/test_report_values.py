"""Values as a statistician prints them: possible, of one estimate, and with their own noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.report.markdown import escape
from harness.report.ranking import ranking
from harness.report.scoring import Scoring
from harness.report.write import markdown_page
from tests.report.records import Made, build_from, seven, write_runs


def scoring(root: Path, title: str) -> Scoring:
    return next(one for one in build_from(root).evidence.scorings if one.key.title == title)


def test_rank_and_difference_have_the_same_sign_with_unequal_seeds(tmp_path: Path) -> None:
    """Ranks once used all seeds, differences the common ones: one in eight disagreed."""
    runs = [Made("lora_bf16", seed=seed, seed_noise=0.05) for seed in range(3)]
    for place, variant in enumerate(("qlora_nf4", "qlora_nf4_dq", "qlora_fp4")):
        runs += [Made(variant, seed=seed, seed_noise=0.05) for seed in range(place, place + 5)]
    write_runs(tmp_path, runs)
    found = scoring(tmp_path, "perplexity")
    reference = found.values["lora_bf16"].value
    for label, difference in found.differences.items():
        value = found.values[label]
        assert (value.value > reference) == (difference.estimate > 0)
        assert value.value == pytest.approx(reference * (1 + difference.estimate), rel=1e-5)
        assert value.anchored
    assert "difference on common seeds" in markdown_page(build_from(tmp_path))


def test_shares_stay_between_none_and_all(tmp_path: Path) -> None:
    """0.8333 ± 2.1 was once printed; a row that is moved to common seeds stays possible, too."""
    runs = [Made("lora_bf16", seed=seed, log_ratio=-1.75) for seed in range(3)]
    runs += [Made("qlora_nf4", seed=seed, log_ratio=-1.79) for seed in (1, 2)]
    runs += [Made("qlora_nf4", seed=seed, log_ratio=-1.0) for seed in (3, 4, 5)]
    write_runs(tmp_path, runs)
    found = scoring(tmp_path, "oasst_choice acc")
    assert found.values["qlora_nf4"].anchored
    for value in found.values.values():
        assert value.low is not None
        assert value.high is not None
        assert 0 <= value.low <= value.value <= value.high <= 1


def test_perplexity_has_an_interval_of_its_own_shape(tmp_path: Path) -> None:
    write_runs(tmp_path, seven())
    for value in scoring(tmp_path, "perplexity").values.values():
        assert value.low is not None
        assert value.high is not None
        assert 0 < value.low < value.value < value.high
        assert value.high / value.value == pytest.approx(value.value / value.low, rel=1e-4)


def test_twins_are_judged_by_their_own_noise(tmp_path: Path) -> None:
    """Double quantization was once less certain where an unlike variant was noisy."""
    twins = [
        Made(variant, seed=seed, seed_noise=0.0005)
        for variant in ("qlora_nf4", "qlora_nf4_dq")
        for seed in range(3)
    ]
    loud = [Made("qlora_fp4", seed=seed, log_ratio=0.2, seed_noise=0.2) for seed in range(3)]
    found = []
    for name, runs in (("few", twins), ("all", [*twins, *loud])):
        write_runs(tmp_path / name, runs)
        answers = build_from(tmp_path / name).evidence.answers
        (one,) = [a for a in answers if a.question.text == "what double quantization changes"]
        found.append((one.difference.low, one.difference.high))
    assert found[0] == found[1]


def test_the_16_bit_base_is_said_to_be_dequantized_wherever_costs_of_nf4_are_shown(
    seven_runs: Path,
) -> None:
    report = build_from(seven_runs)
    packed = escape("the model's file holds Q4_1 weights")
    page = markdown_page(report)
    assert page.count(packed) >= 3, "the decision, the accounting, how scores were taken"
    for line in page.splitlines():
        if "oasst_choice" in line:
            assert "conversation tree" not in line, "items of a task are no conversation trees"
    assert ranking(report.evidence) is not None
