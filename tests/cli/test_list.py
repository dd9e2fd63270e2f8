"""`list` names what there is, and every run with how it ended."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness.records.store import RunStore
from harness.spec.plane import read_plane
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
    assert first[0] == planned("base", *long).suite
    assert len(first[0]) < 20
    assert problem[0][0].startswith("[red]/runs/")
    assert " ".join(line[5] for line in problem).startswith("not a whole JSON document: Expecting")


def test_tasks_are_listed_a_line_each_so_that_grep_finds_one() -> None:
    lines = shown("list", "tasks").splitlines()
    assert {"arc_easy", "mmlu", "held_out_replies"} <= set(lines)
    assert json.loads(shown("list", "tasks", "--json")) == lines == sorted(lines)


def test_what_cannot_be_listed_is_refused_with_what_can() -> None:
    message = refused("list", "everything")
    assert "everything" in message
    assert "variants" in message


def test_a_narrow_terminal_tells_rows_apart(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    for rank in (32, 64):
        store.write(record_of(planned("qlora_nf4_dq", f"adapter.r={rank}", "adapter.lora_alpha=8")))
    text = shown("list", "runs", "--reports", str(tmp_path), width=50)
    rows = [line for line in text.splitlines() if line.startswith("│")]
    assert len(set(rows)) == 2
    assert all(len(row) <= 50 for row in rows)
    assert all("ok" in row for row in rows)


def test_runs_as_json_hold_whole_names_and_what_cannot_be_read(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    store.write(record_of(planned("base")))
    store.write(record_of(planned("qlora_nf4"))).write_text("{")
    good, bad = json.loads(shown("list", "runs", "--reports", str(tmp_path), "--json"))
    assert (good["suite"], good["variant"], good["status"]) == ("quick", "base", "ok")
    assert bad["status"] == "unreadable"
    names = [item["name"] for item in json.loads(shown("list", "models", "--json"))]
    assert "phi2" in names


PUBLISHED = Path(__file__).parents[2] / "reports" / "quick"


def test_published_results_are_listed_and_compared() -> None:
    found = json.loads(shown("list", "runs", "--reports", str(PUBLISHED), "--json"))
    assert {"base", "lora_bf16", "qlora_nf4"} <= {run["variant"] for run in found}
    text = shown("compare", "base", "lora_bf16", "--reports", str(PUBLISHED))
    assert "perplexity" in text


def test_methods_are_told_in_whole_words_on_a_narrow_terminal() -> None:
    """A paragraph a row; a reason stands once, however many rows have it."""
    lines = shown("list", "methods", width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) < 2000
    assert "…" not in "".join(lines)
    rows = read_plane().rows
    text = " ".join(" ".join(lines).split())
    told = [row.cells if row.plan.state == "works" else [row.plan] for row in rows]
    reasons = {cell.reason for cells in told for cell in cells if cell.reason}
    below = next(place for place, line in enumerate(lines) if line.startswith("(1) "))
    explained = " ".join(" ".join(lines[below:]).split())
    assert sorted(re.split(r" ?\(\d+\) ", explained)[1:]) == sorted(reasons)
    assert {row.method for row in rows} <= set(lines)
    assert "nf4, none: works; fast path refused (1)" in text
