"""Ranking: one line of each row, with what it can be filtered by and why it has no value."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.record import RunRecord
from harness.report.evidence import Evidence
from harness.report.ranking import packed_base, ranking, ranking_section, tags_of
from harness.spec.model import HubSource
from harness.spec.storage import read_json, write_json
from tests.planned import planned
from tests.report.records import GPU, Made, build_from, write_run, write_runs
from tests.report.tables import said, table_of, texts


def evidence(root: Path, *runs: Made, **wishes: object) -> Evidence:
    write_runs(root, runs)
    return build_from(root, **wishes).evidence


def lines(found: Evidence) -> dict[str, dict[str, str]]:
    return {row["variant"]: row for row in texts(ranking(found))}


def test_no_runs_say_so(tmp_path: Path) -> None:
    assert said(ranking_section(evidence(tmp_path))) == "No runs yet."


def test_a_line_holds_quality_cost_and_seeds(tmp_path: Path) -> None:
    found = evidence(tmp_path, *(Made("lora_bf16", seed=seed) for seed in range(3)), Made("base"))
    row = lines(found)["lora_bf16"]
    assert row["seeds"] == "3"
    assert row["trainable"] == "4,880,000"
    assert row["verdict"] == "reference"
    assert row["train time"] == "80.0 s (80.0–80.0 s)"
    assert row["tokens/s"] == "350"
    assert row["perplexity ↓"].count("[") == 1, "with its interval"
    base = lines(found)["base"]
    assert base["seeds"] == "not trained"
    assert base["train time"] == "–"


def test_a_row_some_of_whose_runs_failed_says_how_many_ended_well(tmp_path: Path) -> None:
    found = evidence(
        tmp_path, Made("lora_bf16"), Made("lora_bf16", seed=1, status="failed"), Made("base")
    )
    assert lines(found)["lora_bf16"]["seeds"] == "1/2"


def test_a_row_without_a_finished_run_says_how_it_ended(tmp_path: Path) -> None:
    found = evidence(tmp_path, Made("base"), Made("lora_bf16", status="oom"))
    row = lines(found)["lora_bf16"]
    assert row["verdict"] == "out of memory in train"
    assert row["perplexity ↓"] == "–"


def test_the_change_by_training_is_that_on_the_same_weights(tmp_path: Path) -> None:
    found = evidence(tmp_path, Made("lora_bf16", log_ratio=-0.2, seed_noise=0.0), Made("base"))
    change = lines(found)["lora_bf16"]["change by training"]
    assert change.startswith("−18"), "exp(-0.2) - 1"
    assert lines(found)["base"]["change by training"] == "–"


def test_a_row_on_other_items_says_why_it_was_not_compared(tmp_path: Path) -> None:
    digests = {"lora_bf16": "ab", "base": "ab", "qlora_nf4": "cd"}
    runs = [Made(name, corpus_sha256=digest * 32) for name, digest in digests.items()]
    row = lines(evidence(tmp_path, *runs))["qlora_nf4"]
    assert row["verdict"] == "not compared: another model, corpus or way to score"


@pytest.mark.parametrize(
    ("variant", "settings", "tags"),
    [
        ("lora_bf16", (), {"method": "lora", "bits": "16", "rank": "16"}),
        ("qlora_nf4", ("adapter.r=4",), {"method": "lora", "bits": "4", "rank": "4"}),
        ("full_finetune", (), {"method": "full", "bits": "16"}),
        ("base_nf4", (), {"method": "untrained", "bits": "4"}),
    ],
)
def test_a_row_can_be_filtered_by_method_bits_and_rank(
    tmp_path: Path, variant: str, settings: tuple[str, ...], tags: dict[str, str]
) -> None:
    found = evidence(tmp_path, Made(variant, settings=settings))
    (row,) = found.rows
    assert dict(tags_of(row)) == tags
    assert ranking(found).tags == (tuple(tags.items()),)


def test_every_row_opens_the_details_at_its_place(tmp_path: Path) -> None:
    found = evidence(tmp_path, Made("base"), Made("lora_bf16"))
    assert ranking(found).opens == ("variant-1", "variant-2")


def test_columns_that_a_decision_seldom_needs_are_hidden_at_first(tmp_path: Path) -> None:
    table = ranking(evidence(tmp_path, Made("base", answers=True), Made("lora_bf16", answers=True)))
    extra = {column.title for column in table.columns if column.extra}
    assert extra == {"trainable", "tokens/s", "run time"}
    better = {column.title: column.better for column in table.columns}
    assert better["perplexity ↓"] == "lower"
    assert better["oasst_choice acc ↑"] == "higher"


def test_the_caption_says_which_memory_is_shown(tmp_path: Path) -> None:
    on_gpu = ranking(evidence(tmp_path / "gpu", Made("base", device=GPU))).caption
    on_cpu = ranking(evidence(tmp_path / "cpu", Made("base"))).caption
    assert "whole device, NVML" in on_gpu
    assert "resident memory of the process" in on_cpu


def test_rows_with_other_seeds_are_said_to_be_placed_by_common_ones(tmp_path: Path) -> None:
    runs = [Made("lora_bf16", seed=seed) for seed in range(3)]
    runs += [Made("qlora_nf4", seed=seed) for seed in range(1, 5)]
    caption = ranking(evidence(tmp_path, *runs)).caption
    assert "qlora_nf4: not run with the same seeds as lora_bf16" in caption


def test_secondary_scores_are_folded_away_and_equal_ones_in_a_line(tmp_path: Path) -> None:
    section = ranking_section(evidence(tmp_path, Made("base", answers=True)))
    rows = table_of(section, "scores")
    assert "generations rouge_l ↑" in rows[0]
    for variant in ("base", "lora_bf16"):
        folder = write_run(tmp_path / "equal", Made(variant, answers=True))
        record = read_json(folder / "record.json", RunRecord)
        scores = tuple(
            one.model_copy(update={"value": 0.5, "items": None})
            if one.task == "generations"
            else one
            for one in record.scores
        )
        write_json(folder / "record.json", record.model_copy(update={"scores": scores}))
    text = said(ranking_section(build_from(tmp_path / "equal").evidence))
    assert "The same in every row: generations rouge_l 0.5000." in text


def test_how_a_score_was_taken_is_told_without_paths(tmp_path: Path) -> None:
    rows = table_of(ranking_section(evidence(tmp_path, Made("base"))), "protocols")
    perplexity = next(row for row in rows if row["score"] == "perplexity")
    assert perplexity["weights scored"] == "as trained"
    assert perplexity["details"] == "few_shot = 0; data = trees.jsonl"


def test_a_base_that_was_quantized_before_is_named_by_its_type() -> None:
    plan = planned("base")
    assert "holds Q4_1 weights" in packed_base([plan, plan])
    hub = HubSource(kind="hub", repository="owner/base", revision="f" * 40)
    other = plan.model_copy(update={"model": plan.model.model_copy(update={"source": hub})})
    assert packed_base([other]) == ""
    assert packed_base([]) == ""
