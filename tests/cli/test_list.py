"""`list` names what there is, and every run with how it ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.store import RunStore
from harness.spec.registry import variant_names
from tests.cli.terminal import refused, shown
from tests.planned import planned
from tests.store_records import record_of


def test_list_names_every_variant_with_its_description() -> None:
    text = shown("list")
    assert all(name in text for name in variant_names())
    assert "QLoRA: LoRA on a 4-bit NormalFloat base" in text


@pytest.mark.parametrize(
    ("kind", "name"), [("suites", "quick"), ("models", "smollm2_135m_instruct")]
)
def test_list_names_suites_and_models(kind: str, name: str) -> None:
    assert name in shown("list", kind)


def test_list_runs_shows_good_and_unreadable_ones(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    store.write(record_of(planned("base")))
    store.write(record_of(planned("qlora_nf4"))).write_text("{")
    text = shown("list", "runs", "--reports", str(tmp_path))
    assert "base" in text
    assert "unreadable" in text


def test_list_runs_gives_a_run_one_line_and_a_problem_as_many_as_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = RunStore(tmp_path / "[red]" / "runs")
    long = ("corpus.held_out_limit=33", "budget.steps=7", "budget.batch_size=4")
    for variant in ("base", "lora_bf16", "qlora_nf4"):
        store.write(record_of(planned(variant, *long)))
    store.folder(planned("lora_bf16", *long)).record.write_text("{")
    text = shown("list", "runs", "--reports", "[red]", width=100)
    lines = [line.strip("│").split("│") for line in text.splitlines() if line[0] == "│"]
    first, *problem, last = [[cell.strip() for cell in line] for line in lines]
    assert [line[1:4] for line in (first, last)] == [["base", "0", "ok"], ["qlora_nf4", "0", "ok"]]
    assert first[0].startswith("quick+budget")
    assert first[0].endswith("…")
    assert problem[0][0].startswith("[red]/runs/")
    assert " ".join(line[5] for line in problem).startswith("not a whole JSON document: Expecting")


def test_what_cannot_be_listed_is_refused_with_what_can() -> None:
    message = refused("list", "everything")
    assert "everything" in message
    assert "variants" in message
