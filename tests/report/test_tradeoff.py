"""Tradeoff: who is on the front of quality against a cost, and what the picture says."""

from __future__ import annotations

from pathlib import Path

from harness.records.record import RunRecord
from harness.report.blocks import Figure
from harness.report.evidence import Evidence
from harness.report.figures.forest import Forest
from harness.report.figures.scatter import Scatter
from harness.report.tradeoff import looks, tradeoff_section
from harness.report.tradeoff_rows import MOST_IN_A_PLANE, MOST_ROWS
from harness.spec.storage import read_json, write_json
from tests.report.records import GPU, Made, build_from, write_run, write_runs
from tests.report.tables import said

GOOD_AND_LARGE = Made("lora_bf16", log_ratio=-0.3, memory=2.0)
WORSE_AND_SMALL = Made("qlora_nf4", log_ratio=0.0, memory=1.0)
WORST_AND_LARGEST = Made("qlora_fp4", log_ratio=0.3, memory=3.0)


def drawings(root: Path, *runs: Made, **wishes: object) -> dict[str, Scatter]:
    write_runs(root, runs)
    section = tradeoff_section(build_from(root, **wishes).evidence)
    figures = [] if section is None else [b for b in section.blocks if isinstance(b, Figure)]
    return {
        figure.name: figure.drawing for figure in figures if isinstance(figure.drawing, Scatter)
    }


def test_what_is_worse_and_dearer_is_behind_the_front(tmp_path: Path) -> None:
    drawn = drawings(tmp_path, GOOD_AND_LARGE, WORSE_AND_SMALL, WORST_AND_LARGEST)
    points = {point.label: point for point in drawn["quality-memory"].points}
    assert {label for label, point in points.items() if point.on_front} == {
        "lora_bf16",
        "qlora_nf4",
    }
    assert points["lora_bf16"].recommended
    assert not points["qlora_nf4"].recommended


def test_a_cost_that_tells_no_rows_apart_has_no_picture(tmp_path: Path) -> None:
    drawn = drawings(tmp_path, GOOD_AND_LARGE, WORSE_AND_SMALL)
    assert set(drawn) == {"quality-memory"}, "all took the same time, and no energy was measured"


def test_energy_is_drawn_where_it_was_measured(tmp_path: Path) -> None:
    runs = [
        Made("lora_bf16", log_ratio=-0.3, memory=2.0, seconds=100, device=GPU),
        Made("qlora_nf4", memory=1.0, seconds=300, device=GPU),
    ]
    drawn = drawings(tmp_path, *runs)
    assert set(drawn) == {"quality-memory", "quality-time", "quality-energy"}
    assert drawn["quality-time"].x.title == "time in training steps, minutes"
    energy = {point.label: point.x for point in drawn["quality-energy"].points}
    assert energy["lora_bf16"] == 100 * 300 * 2 / 3600, "watt-hours"


def test_the_front_is_that_of_the_values_that_are_drawn(tmp_path: Path) -> None:
    """No prediction puts a row on it that another one beats in both, nor a tie one off it."""
    best = Made("lora_bf16", log_ratio=-0.3, memory=1.01, seconds=100)
    planned_smaller = Made("base_nf4", log_ratio=0.1, memory=1.0)
    runs = [best, planned_smaller, Made("qlora_nf4", memory=1.02, seconds=95)]
    for points in (drawing.points for drawing in drawings(tmp_path, *runs).values()):
        beaten = {
            one.label
            for one in points
            for other in points
            if other is not one and other.x <= one.x and other.y <= one.y
        }
        assert {point.label for point in points if not point.on_front} == beaten


def test_records_without_steps_are_drawn_by_the_whole_phase(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("lora_bf16", seconds=300)])
    path = write_run(tmp_path, Made("qlora_nf4", seconds=200)) / "record.json"
    record = read_json(path, RunRecord)
    assert record.training is not None
    training = record.training.model_copy(update={"losses": ()})
    write_json(path, record.model_copy(update={"training": training}))
    drawing = drawings(tmp_path)["quality-time"]
    assert drawing.x.title == "training time, minutes"
    assert {point.x for point in drawing.points} == {200 / 60, 300 / 60}


def test_your_own_limit_is_drawn_into_the_picture_of_memory(tmp_path: Path) -> None:
    drawn = drawings(tmp_path, GOOD_AND_LARGE, WORSE_AND_SMALL, budget_memory_bytes=3 << 30)[
        "quality-memory"
    ]
    assert drawn.limit == 3.0
    assert drawn.limit_label == "your limit, 3.00 GiB"


def test_a_point_tells_its_value_difference_and_cost(tmp_path: Path) -> None:
    drawn = drawings(tmp_path, GOOD_AND_LARGE, WORSE_AND_SMALL)["quality-memory"]
    (point,) = [one for one in drawn.points if one.label == "qlora_nf4"]
    assert point.said.startswith("qlora_nf4: perplexity ")
    assert ", +" in point.said
    assert point.said.endswith("; 1.96 GiB")
    assert point.low is None, "one training has no interval"


def test_the_note_says_how_close_a_tie_is_and_what_shapes_mean(tmp_path: Path) -> None:
    write_runs(tmp_path, [GOOD_AND_LARGE, WORSE_AND_SMALL, Made("base", memory=0.5)])
    found = build_from(tmp_path).evidence
    text = said(tradeoff_section(found))
    assert "memory up to 25 %" in text, "of a processor without repeated runs"
    assert looks(found.rows) in text
    assert "○ lora, ◇ untrained." in looks(found.rows)


def test_methods_without_a_shape_of_their_own_share_one(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("lora_bf16", settings=("adapter.type=VERA", "adapter.r=4"))])
    found = build_from(tmp_path).evidence
    assert "✚ other methods" in looks(found.rows)


def test_without_a_score_there_is_no_trade_off(tmp_path: Path) -> None:
    assert drawings(tmp_path, Made("lora_bf16", status="oom")) == {}


def many(**changes: object) -> list[Made]:
    """More variants than a plane can show: each a little worse and smaller, and one far off."""
    ranks = [
        Made(
            "lora_bf16",
            (f"adapter.r={2 + n}",),
            seed=seed,
            log_ratio=-0.2 + 0.02 * n,
            memory=2.0 - 0.05 * n + 0.3 * (n == 5),
            seconds=80.0 + 3 * n,
            **changes,  # type: ignore[arg-type]
        )
        for n in range(MOST_IN_A_PLANE)
        for seed in range(2)
    ]
    return [*ranks, Made("base"), Made("qlora_nf4", log_ratio=3.0, memory=0.7)]


def figures_of(evidence: Evidence) -> list[Figure]:
    section = tradeoff_section(evidence)
    assert section is not None
    return [block for block in section.blocks if isinstance(block, Figure)]


def test_many_variants_stand_in_rows_with_all_their_costs(tmp_path: Path) -> None:
    write_runs(tmp_path, many())
    evidence = build_from(tmp_path).evidence
    (figure,) = figures_of(evidence)
    assert figure.name == "quality-costs"
    forest = figure.drawing
    assert isinstance(forest, Forest)
    assert len(forest.panels) == 3
    assert forest.panels[0].title.startswith(f"perplexity against {evidence.reference}, %")
    assert forest.panels[0].highest is not None, "one variant does not flatten the others"
    assert [row.label for row in forest.rows] == [
        row.label for row in evidence.ranked if row.label in {one.label for one in forest.rows}
    ]
    reference = next(row for row in forest.rows if row.label == evidence.reference)
    assert reference.estimates[0] is not None
    assert reference.estimates[0].text.startswith("reference, ")
    assert sum(row.ringed for row in forest.rows) == 1
    assert {name for _, name in forest.key} >= {"LoRA family", "LoRA family, 4-bit base"}
    for place in (1, 2):
        costs = [row.estimates[place] for row in forest.rows]
        for index, cost in enumerate(costs):
            above = [other.value for other in costs[:index] if other]
            assert cost is None or cost.strong == all(cost.value < other for other in above)
    assert "Pareto front" in said(tradeoff_section(evidence))


def test_rows_show_the_readers_limit_on_memory(tmp_path: Path) -> None:
    write_runs(tmp_path, many())
    (figure,) = figures_of(build_from(tmp_path, budget_memory_bytes=3 * 2**30).evidence)
    assert isinstance(figure.drawing, Forest)
    memory = figure.drawing.panels[1]
    assert memory.limit == 3
    assert "your limit, 3.00 GiB" in memory.title


def test_of_very_many_the_best_are_drawn_with_reference_and_recommended(tmp_path: Path) -> None:
    runs = [
        Made("lora_bf16", (f"adapter.r={2 + n}",), log_ratio=0.01 * n, memory=1 + n / 100)
        for n in range(MOST_ROWS + 6)
    ]
    write_runs(tmp_path, [*runs, Made("base", log_ratio=2.0)])
    (figure,) = figures_of(build_from(tmp_path, reference="base").evidence)
    assert isinstance(figure.drawing, Forest)
    assert len(figure.drawing.rows) == MOST_ROWS
    assert figure.drawing.rows[-1].label == "base"
    assert f"of {MOST_ROWS} of {MOST_ROWS + 7} variants" in figure.caption
