"""Differences: the primary score in full, the others folded away, and what cannot be compared."""

from __future__ import annotations

from pathlib import Path

from harness.records.record import RunRecord
from harness.report.blocks import Details, Figure
from harness.report.differences import counted_items, differences_section, noise_section
from harness.report.evidence import Evidence
from harness.report.figures.intervals import Intervals
from harness.spec.storage import read_json, write_json
from tests.report.records import Made, build_from, write_run, write_runs
from tests.report.tables import every_block, said, table_of

MAIN = "differences-held_out-perplexity-training"
CHOICE = "differences-oasst_choice-acc-training"


def three(variant: str, log_ratio: float, **changes: object) -> list[Made]:
    return [Made(variant, seed=s, log_ratio=log_ratio, **changes) for s in range(3)]  # type: ignore[arg-type]


def evidence(root: Path, *runs: Made) -> Evidence:
    write_runs(root, runs)
    return build_from(root).evidence


def test_one_row_differs_from_nothing(tmp_path: Path) -> None:
    assert differences_section(evidence(tmp_path, Made("lora_bf16"))) is None


def test_the_primary_score_is_corrected_by_holm_and_the_others_together(tmp_path: Path) -> None:
    found = evidence(tmp_path, *three("lora_bf16", -0.2), *three("qlora_nf4", 0.2))
    section = differences_section(found)
    (main,) = table_of(section, MAIN)
    assert main["verdict"] == "worse"
    assert main["p (Holm)"] == "< 0.0001"
    assert main["difference [95 % interval]"].startswith("+4")
    (other,) = table_of(section, CHOICE)
    assert "p (BH)" in other
    assert "smallest detectable difference" not in other, "of the primary score only"
    assert section is not None
    folded = [block.summary for block in section.blocks if isinstance(block, Details)]
    assert "Secondary (exploratory): oasst_choice acc" in folded


def test_what_would_show_equivalence_is_said_of_what_is_undecided(tmp_path: Path) -> None:
    runs = [*three("lora_bf16", -0.2), *three("qlora_nf4", -0.198, seed_noise=0.02)]
    (row,) = table_of(differences_section(evidence(tmp_path, *runs)), MAIN)
    assert row["verdict"] == "undecided"
    assert "seeds" in row["needed for equivalence"]
    assert row["smallest detectable difference"].endswith(" %")


def test_items_needed_are_held_to_those_that_the_task_has(tmp_path: Path) -> None:
    for made in (*three("lora_bf16", -0.2), *three("qlora_nf4", -0.19, seed_noise=0.0)):
        folder = write_run(tmp_path, made)
        record = read_json(folder / "record.json", RunRecord)
        scores = tuple(
            one.model_copy(update={"details": {"documents": 100}}) for one in record.scores
        )
        write_json(folder / "record.json", record.model_copy(update={"scores": scores}))
    found = build_from(tmp_path).evidence
    needed = [
        row.get("needed for equivalence", "") for row in table_of(differences_section(found), MAIN)
    ]
    for text in needed:
        if "items" in text:
            assert "the task has 100" in text or "84" not in text


def test_single_trainings_have_neither_interval_nor_verdict(tmp_path: Path) -> None:
    section = differences_section(evidence(tmp_path, Made("lora_bf16"), Made("qlora_nf4")))
    (row,) = table_of(section, MAIN)
    assert "[" not in row["difference [95 % interval]"]
    assert row["verdict"].startswith(("differs on these items", "undecided"))
    assert "another seed may give another difference" in said(section)


def test_few_groups_of_items_are_not_compared(tmp_path: Path) -> None:
    section = differences_section(
        evidence(tmp_path, Made("lora_bf16", trees=5), Made("qlora_nf4", trees=5))
    )
    text = said(section)
    assert "fewer than 8 groups of items were scored: perplexity, oasst_choice acc" in text


def test_the_picture_has_the_margin_and_an_interval_of_each_row(tmp_path: Path) -> None:
    found = evidence(tmp_path, *three("lora_bf16", -0.2), *three("qlora_nf4", 0.2), Made("base"))
    section = differences_section(found)
    assert section is not None
    figures = [block for block in every_block(section.blocks) if isinstance(block, Figure)]
    main = next(figure for figure in figures if figure.name == MAIN)
    assert isinstance(main.drawing, Intervals)
    assert main.drawing.margin == 0.01
    assert {row.label for row in main.drawing.rows} == {"qlora_nf4", "base"}
    assert all(row.low is not None for row in main.drawing.rows)
    choice = next(figure for figure in figures if figure.name == CHOICE)
    assert isinstance(choice.drawing, Intervals)
    assert choice.drawing.margin == 1.0, "shares are drawn in percentage points"


def test_items_are_counted_with_the_groups_that_they_form(tmp_path: Path) -> None:
    main = evidence(tmp_path, Made("base"), Made("base_nf4")).main
    assert main is not None
    assert counted_items(main) == "84 items in 28 groups"


def test_noise_is_told_apart_by_seeds_and_items(tmp_path: Path) -> None:
    found = evidence(tmp_path, *three("lora_bf16", -0.2), *three("qlora_nf4", 0.0), Made("base"))
    rows = {row["variant"]: row for row in table_of(noise_section(found), "noise")}
    assert rows["lora_bf16"]["spread between seeds (s.d.)"] != "–"
    assert rows["base"]["spread between seeds (s.d.)"] == "–"
    assert rows["base"]["seeds"] == "not trained"
    assert rows["qlora_nf4"]["paired: from items (s.e.)"].endswith(" %")
    assert rows["lora_bf16"]["paired: from items (s.e.)"] == "–", "it is the reference"


def test_with_one_seed_it_is_said_what_is_not_known(tmp_path: Path) -> None:
    found = noise_section(evidence(tmp_path, Made("lora_bf16"), Made("base")))
    assert "One seed only: how much repeating the training would change is unknown." in said(found)


def test_without_items_nothing_is_said_of_noise(tmp_path: Path) -> None:
    assert noise_section(evidence(tmp_path, Made("lora_bf16", status="oom"))) is None
