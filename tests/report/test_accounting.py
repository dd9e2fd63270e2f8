"""Accounting: what quantization costs and training wins back, each answered once."""

from __future__ import annotations

from pathlib import Path

from harness.report.accounting import accounting_section
from harness.report.questions import GAIN
from tests.report.records import Made, build_from, write_runs
from tests.report.tables import said, table_of

COST = "what nf4 costs the base"


def answers(root: Path, *runs: Made) -> dict[tuple[str, str], dict[str, str]]:
    """The lines of the table by question and row."""
    write_runs(root, runs)
    rows = table_of(accounting_section(build_from(root).evidence), "accounting")
    return {(row["question"], row["row"]): row for row in rows}


def test_without_anything_to_compare_there_is_no_section(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("lora_bf16")])
    assert accounting_section(build_from(tmp_path).evidence) is None


def test_the_bases_are_compared_without_seeds(tmp_path: Path) -> None:
    row = answers(tmp_path, Made("base"), Made("base_nf4", log_ratio=0.18))[COST, "base_nf4"]
    assert row["against"] == "base"
    assert row["seeds"] == "not trained"
    assert row["verdict"] == "worse"
    assert row["perplexity [95 % interval]"].startswith("+19"), "exp(0.18) - 1 was put there"
    assert row["weights"].startswith("−"), "four bits are less than sixteen"


def test_training_wins_back_a_share_of_what_quantization_cost(tmp_path: Path) -> None:
    """The generator puts 0.18 between the bases, and training takes half of it away again."""
    trained = [Made("qlora_nf4", seed=seed, log_ratio=0.09, seed_noise=0.0) for seed in range(3)]
    plain = Made("base"), Made("base_nf4", log_ratio=0.18)
    row = answers(tmp_path, *plain, *trained)[GAIN, "qlora_nf4"]
    share = float(row["recovered"].removesuffix(" %"))
    assert 40 < share < 60
    assert row["verdict"] == "better"
    assert row["seeds"] == "3"


def test_gains_on_plain_weights_win_nothing_back(tmp_path: Path) -> None:
    trained = [Made("lora_bf16", seed=seed, log_ratio=-0.2) for seed in range(3)]
    row = answers(tmp_path, Made("base"), *trained)[GAIN, "lora_bf16"]
    assert row.get("recovered", "–") == "–"


def test_single_trainings_have_no_corrected_p(tmp_path: Path) -> None:
    row = answers(tmp_path, Made("base"), Made("lora_bf16", log_ratio=-0.2))[GAIN, "lora_bf16"]
    assert row.get("p (corrected)", "–") == "–"
    assert row["verdict"] == "differs on these items (one training each)"


def test_a_base_that_comes_quantized_is_said_to(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("base"), Made("base_nf4")])
    section = accounting_section(build_from(tmp_path).evidence)
    assert "the model's file holds Q4_1 weights" in said(section)
