"""Console: tables that fit a terminal, and comparisons with a line for each quantity."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from harness.report.compare import compare
from harness.report.console import comparison_table, outcome_lines, ranking_table
from harness.report.gate import judge, parse_gate
from harness.report.sides import find_side
from tests.report.records import GPU, Made, build_from, write_runs


def printed(what: object, width: int = 200) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(what)
    return stream.getvalue()


def three(variant: str, log_ratio: float = 0.0) -> list[Made]:
    return [Made(variant, seed=s, log_ratio=log_ratio, device=GPU) for s in range(3)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("console")
    write_runs(folder, [*three("lora_bf16", -0.1), *three("qlora_nf4", 0.1)])
    return folder


def test_the_ranking_shows_all_columns_where_there_is_room(root: Path) -> None:
    text = printed(ranking_table(build_from(root)), 400)
    for word in ("lora_bf16", "qlora_nf4", "perplexity", "peak memory", "run time"):
        assert word in text
    assert "In the report only" not in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_keeps_what_matters_and_names_the_rest(root: Path, width: int) -> None:
    table = ranking_table(build_from(root), width)
    titles = [str(column.header).replace("\n", " ") for column in table.columns]
    assert titles[:2] == ["variant", "perplexity ↓"]
    assert "In the report only: " in str(table.caption)
    assert all(title in str(table.caption) for title in ("run time",))
    assert len(titles) < 12


def test_a_long_verdict_wraps_and_takes_no_other_column_away(tmp_path: Path) -> None:
    """Of single trainings the verdict is a sentence; memory has to stay beside it."""
    write_runs(tmp_path, [Made("lora_bf16"), Made("qlora_nf4", log_ratio=0.1)])
    table = ranking_table(build_from(tmp_path), 80)
    titles = [str(column.header).replace("\n", " ") for column in table.columns]
    assert {"verdict", "peak memory", "tokens/s"} <= set(titles)
    text = printed(table, 80)
    assert "differs on these items" in text
    assert "…" not in text


def test_wider_terminals_show_more(root: Path) -> None:
    report = build_from(root)
    counts = [len(ranking_table(report, width).columns) for width in (50, 80, 120, 200, 300)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_a_comparison_has_a_line_for_each_quantity_in_its_own_unit(root: Path) -> None:
    found = compare(find_side("lora_bf16", root), find_side("qlora_nf4", root))
    text = printed(comparison_table(found))
    assert "qlora_nf4 (B) against lora_bf16 (A)" in text
    for word in ("perplexity", "oasst_choice acc", "GiB", "worse", "points"):
        assert word in text
    assert "variant" not in text.splitlines()[2], "one pair needs no name"


def test_several_pairs_are_told_apart_and_what_has_no_partner_is_named(tmp_path: Path) -> None:
    for side, variants in (("a", ("lora_bf16", "base", "qlora_fp4")), ("b", ("lora_bf16", "base"))):
        write_runs(tmp_path / side, [Made(name) for name in variants])
    found = compare(
        find_side(str(tmp_path / "a"), tmp_path), find_side(str(tmp_path / "b"), tmp_path)
    )
    text = printed(comparison_table(found))
    assert "variant" in text
    assert "without a match: qlora_fp4" in text


def test_a_run_that_failed_cannot_be_compared(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("lora_bf16"), Made("qlora_nf4", status="oom")])
    found = compare(find_side("lora_bf16", tmp_path), find_side("qlora_nf4", tmp_path))
    assert "cannot compare" in printed(comparison_table(found))


def test_one_training_each_says_why_there_is_no_interval(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("lora_bf16"), Made("qlora_nf4")])
    found = compare(find_side("lora_bf16", tmp_path), find_side("qlora_nf4", tmp_path))
    assert "one training each" in printed(comparison_table(found))


def test_a_gate_is_one_coloured_line(root: Path) -> None:
    found = compare(find_side("lora_bf16", root), find_side("qlora_nf4", root))
    gates = [parse_gate(text) for text in ("perplexity > +1%", "acc < -99pp")]
    failed, passed = outcome_lines(judge(found, gates))
    assert failed.plain.startswith("FAILED: perplexity of ")
    assert str(failed.style) == "red"
    assert passed.plain.startswith("OK: acc of ")
    assert str(passed.style) == "green"
