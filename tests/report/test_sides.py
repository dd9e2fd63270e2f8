"""Sides: what a user may name to compare, and what is said of a name that fits nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InvalidFile, UnknownName, UserError
from harness.report.sides import find_side, read_runs
from tests.report.records import Made, write_run, write_runs


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    write_runs(root, [Made("lora_bf16", seed=seed) for seed in range(2)])
    write_runs(root, [Made("qlora_nf4"), Made("qlora_nf4", settings=("budget.steps=20",))])
    return root


def damage(folder: Path) -> None:
    (folder / "record.json").write_text("{", encoding="utf-8")


def test_a_variant_is_all_its_seeds(runs: Path) -> None:
    side = find_side("lora_bf16", runs)
    (row,) = side.rows
    assert (side.name, row.seeds) == ("lora_bf16", (0, 1))


@pytest.mark.parametrize(
    ("name", "seeds"), [("quick/lora_bf16", (0, 1)), ("quick/lora_bf16/1", (1,))]
)
def test_a_variant_may_be_named_as_for_export(runs: Path, name: str, seeds: tuple[int]) -> None:
    (row,) = find_side(name, runs).rows
    assert (row.label, row.seeds) == ("lora_bf16", seeds)


def test_a_mistyped_variant_is_offered_in_the_form_that_was_typed(runs: Path) -> None:
    with pytest.raises(UnknownName, match="quick/lora_bf17") as caught:
        find_side("quick/lora_bf17", runs)
    assert "did you mean quick/lora_bf16" in str(caught.value)


def test_a_folder_is_every_record_below_it(runs: Path) -> None:
    side = find_side(str(runs / "quick"), Path("/nowhere"))
    assert {row.variant for row in side.rows} == {"lora_bf16", "qlora_nf4"}


def test_one_run_s_folder_is_that_run(runs: Path) -> None:
    folder = next((runs / "quick" / "lora_bf16").iterdir())
    (row,) = find_side(str(folder), runs).rows
    assert len(row.runs) == 1


def test_a_variant_in_several_settings_must_be_told_apart(runs: Path) -> None:
    with pytest.raises(UserError, match="qlora_nf4 was run in 2 settings") as caught:
        find_side("qlora_nf4", runs)
    assert "budget.steps=20" in str(caught.value)
    assert "name the run's folder" in str(caught.value)


def test_the_settings_shown_name_a_row(runs: Path) -> None:
    with pytest.raises(UserError) as caught:
        find_side("qlora_nf4", runs)
    label = str(caught.value).partition("one of them: ")[2].partition("; ")[0]
    assert find_side(label, runs).rows[0].label == label


def test_a_name_that_nothing_has_is_answered_with_those_there_are(runs: Path) -> None:
    with pytest.raises(UnknownName, match="lora_bf17") as caught:
        find_side("lora_bf17", runs)
    assert "lora_bf16" in str(caught.value)


def test_a_folder_without_a_record_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no record in this folder"):
        find_side(str(tmp_path), tmp_path)


def test_the_only_record_that_fits_and_cannot_be_read_is_what_is_wrong(tmp_path: Path) -> None:
    folder = write_run(tmp_path, Made("base"))
    damage(folder)
    for target in ("base", str(folder)):
        with pytest.raises(InvalidFile) as caught:
            find_side(target, tmp_path)
        assert "record.json" in str(caught.value)


def test_beside_good_records_one_that_cannot_be_read_is_kept_apart(tmp_path: Path) -> None:
    write_run(tmp_path, Made("base"))
    damage(write_run(tmp_path, Made("lora_bf16")))
    found, broken = read_runs(tmp_path)
    assert [run.record.plan.variant for run in found] == ["base"]
    assert [run.folder.variant for run in broken] == ["lora_bf16"]


def test_an_attempt_under_way_is_no_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path, Made("base"))
    attempt = folder / "attempt"
    attempt.mkdir()
    (attempt / "record.json").write_bytes((folder / "record.json").read_bytes())
    found, broken = read_runs(tmp_path)
    assert (len(found), broken) == (1, ())
