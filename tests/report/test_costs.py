"""Costs: memory and time by phase, without what was taken over from another run."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.record import PhaseCost, RunRecord
from harness.report.blocks import Figure
from harness.report.costs import memory_section, time_section
from harness.report.evidence import Evidence
from harness.report.figures.panels import Panels
from harness.report.figures.stacks import Stacks
from harness.spec.storage import read_json, write_json
from tests.report.records import GPU, Made, build_from, write_run, write_runs
from tests.report.tables import every_block, said, table_of


def evidence(root: Path, *runs: Made) -> Evidence:
    write_runs(root, runs)
    return build_from(root).evidence


def change(folder: Path, **fields: object) -> None:
    record = read_json(folder / "record.json", RunRecord)
    write_json(folder / "record.json", record.model_copy(update=fields))


def reuse(folder: Path, name: str) -> None:
    """As if a phase had taken over what another run had found."""
    phases = read_json(folder / "record.json", RunRecord).phases
    reused = tuple(
        PhaseCost.model_validate({**cost.model_dump(), "reused": cost.name == name})
        for cost in phases
    )
    change(folder, phases=reused)


def figure(found: object, kind: type) -> object:
    section = memory_section(found) if kind is Panels else time_section(found)  # type: ignore[arg-type]
    assert section is not None
    (drawn,) = [block for block in every_block(section.blocks) if isinstance(block, Figure)]
    assert isinstance(drawn.drawing, kind)
    return drawn.drawing


def test_without_runs_there_are_no_costs(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    assert memory_section(found) is None
    assert time_section(found) is None


def test_memory_stands_beside_what_was_predicted(tmp_path: Path) -> None:
    found = evidence(tmp_path, Made("lora_bf16"), Made("base"))
    rows = {row["variant"]: row for row in table_of(memory_section(found), "memory")}
    assert rows["lora_bf16"]["train"] == "1.96 GiB"
    assert rows["lora_bf16"]["train predicted"] == "1.86 GiB"
    assert rows["base"]["train"] == "–"
    assert rows["base"]["train predicted"] == "–", "nothing is trained"
    assert rows["base"]["load predicted"] == "477 MiB"


def test_the_figure_has_a_bar_of_each_row_in_the_order_of_the_ranking(tmp_path: Path) -> None:
    found = evidence(tmp_path, Made("base", log_ratio=0.5), Made("lora_bf16", log_ratio=-0.5))
    drawing = figure(found, Panels)
    assert isinstance(drawing, Panels)
    assert [bar.label for bar in drawing.bars] == ["lora_bf16", "base"]
    place = drawing.parts.index("train")
    lora, base = drawing.bars
    assert lora.values[place] == pytest.approx(2.1e9 / 2**30, rel=1e-5)
    assert lora.beside[place] == pytest.approx(2e9 / 2**30, rel=1e-5)
    assert base.values[place] is None


def test_a_failed_run_shows_the_peak_that_it_reached(tmp_path: Path) -> None:
    found = evidence(tmp_path, Made("lora_bf16", status="oom"))
    (row,) = table_of(memory_section(found), "memory")
    assert row["train"] == "1.96 GiB"
    assert "the peak that they reached" in said(memory_section(found))


def test_the_spread_over_seeds_is_shown(tmp_path: Path) -> None:
    runs = [Made("lora_bf16", seed=s, memory=1 + s / 10, seconds=80 + 10 * s) for s in range(3)]
    found = evidence(tmp_path, *runs)
    (memory,) = table_of(memory_section(found), "memory")
    assert memory["train"] == "2.15 GiB (1.96–2.35 GiB)"
    (time,) = table_of(time_section(found), "time")
    assert time["train"] == "90.0 s (80.0 s–1 min 40 s)"


def test_a_model_that_was_not_predicted_is_named(tmp_path: Path) -> None:
    change(write_run(tmp_path, Made("lora_bf16")), prediction=None)
    write_run(tmp_path, Made("base"))
    text = said(memory_section(build_from(tmp_path).evidence))
    assert "Not predicted: lora_bf16 (a training step could not be simulated" in text


def test_the_device_s_own_memory_is_named(tmp_path: Path) -> None:
    found = memory_section(evidence(tmp_path, Made("lora_bf16", device=GPU)))
    assert found is not None
    (drawn,) = [block for block in found.blocks if isinstance(block, Figure)]
    assert "whole device, NVML" in drawn.caption


def test_time_is_drawn_in_minutes_where_runs_are_long(tmp_path: Path) -> None:
    short = figure(evidence(tmp_path / "short", Made("lora_bf16")), Stacks)
    long = figure(evidence(tmp_path / "long", Made("lora_bf16", seconds=600)), Stacks)
    assert isinstance(short, Stacks)
    assert isinstance(long, Stacks)
    assert short.x.title == "time, seconds"
    assert long.x.title == "time, minutes"
    place = long.parts.index("train")
    assert (short.bars[0].values[place], long.bars[0].values[place]) == (80.0, 10.0)


def test_what_one_run_took_over_is_left_out_of_all_totals(tmp_path: Path) -> None:
    """Beside rows that took a score over, the one that worked would look slow."""
    write_run(tmp_path, Made("lora_bf16"))
    reuse(write_run(tmp_path, Made("qlora_nf4")), "score_base")
    found = build_from(tmp_path).evidence
    drawing = figure(found, Stacks)
    assert isinstance(drawing, Stacks)
    assert "score_base" not in drawing.parts
    assert len({bar.total for bar in drawing.bars}) == 1
    assert "Reused: score_base in 1 of the 1 runs of qlora_nf4." in said(time_section(found))


def test_throughput_has_its_spread_and_its_warm_up(tmp_path: Path) -> None:
    found = evidence(tmp_path, Made("lora_bf16"), Made("base"))
    rows = {row["variant"]: row for row in table_of(time_section(found), "time")}
    assert rows["lora_bf16"]["tokens/s p10–p90"] == "300–390"
    assert rows["lora_bf16"]["warm-up steps left out"] == "3"
    assert rows["lora_bf16"]["compile"] == "–", "nothing was compiled"
    assert rows["base"]["tokens/s p10–p90"] == "–"


def test_validating_has_a_column_only_where_it_was_done(tmp_path: Path) -> None:
    (row,) = table_of(time_section(evidence(tmp_path, Made("lora_bf16"))), "time")
    assert "validate" not in row
    folder = write_run(tmp_path, Made("lora_bf16"))
    phases = read_json(folder / "record.json", RunRecord).phases
    change(folder, phases=(*phases, PhaseCost(name="validate", seconds=6.0)))
    (row,) = table_of(time_section(build_from(tmp_path).evidence), "time")
    assert row["validate"] == "6.0 s"


def test_memory_within_what_repeats_differ_by_is_no_surprise(tmp_path: Path) -> None:
    """The decision calls 2 % more memory a tie on a processor, and so does the note."""
    found = evidence(tmp_path, Made("lora_bf16"), Made("qlora_nf4", memory=1.02))
    assert "trains in more memory" not in said(memory_section(found))


def test_steps_and_compiling_are_told_of_all_runs(tmp_path: Path) -> None:
    """One run that compiled for long is not shown as what the variant needs."""
    for seed, compiled in enumerate((8.7, 3.1, 2.9)):
        folder = write_run(tmp_path, Made("lora_bf16", seed=seed, seconds=20, once=10))
        training = read_json(folder / "record.json", RunRecord).training
        assert training is not None
        change(folder, training=training.model_copy(update={"compile_seconds": compiled}))
    (row,) = table_of(time_section(build_from(tmp_path).evidence), "time")
    assert row["steps"] == "10.0 s (10.0–10.0 s)"
    assert row["compile"] == "3.1 s (2.9–8.7 s)"
