"""Curves: losses by step and quality by one setting, joined only where nothing else differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.record import RunRecord
from harness.report.blocks import Figure
from harness.report.curves import loss_section, running_mean, sweep_section, training_line
from harness.report.evidence import Evidence
from harness.report.figures.lines import Curves
from harness.report.figures.multiples import Multiples
from harness.report.figures.panels import Panels
from harness.spec.storage import read_json, write_json
from tests.report.records import Made, build_from, write_run, write_runs
from tests.report.tables import every_block, said


def evidence(root: Path, *runs: Made) -> Evidence:
    write_runs(root, runs)
    return build_from(root).evidence


def figures(section: object) -> dict[str, Figure]:
    assert section is not None
    blocks = every_block(section.blocks)  # type: ignore[attr-defined]
    return {block.name: block for block in blocks if isinstance(block, Figure)}


@pytest.mark.parametrize(
    ("values", "width", "means"),
    [
        ([1.0, 2.0, 3.0], 1, [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 6.0], 3, [1.5, 3.0, 4.0]),
        ([4.0], 5, [4.0]),
        ([], 5, []),
    ],
)
def test_a_running_mean_is_centred_and_narrower_at_the_ends(
    values: list[float], width: int, means: list[float]
) -> None:
    assert running_mean(values, width) == means


def test_what_is_not_trained_has_no_curve(tmp_path: Path) -> None:
    found = evidence(tmp_path, Made("base"))
    assert training_line(found.rows[0]) is None
    assert loss_section(found) is None


def test_a_curve_is_the_mean_over_seeds_with_their_range(tmp_path: Path) -> None:
    found = evidence(tmp_path, *(Made("lora_bf16", seed=seed) for seed in range(3)))
    line = training_line(found.by_label["lora_bf16"])
    assert line is not None
    assert line.x == tuple(float(step) for step in range(1, 41))
    for low, mean, high in zip(line.low, line.y, line.high, strict=True):
        assert low <= mean <= high
    assert line.low != line.high


def test_one_seed_has_no_range(tmp_path: Path) -> None:
    line = training_line(evidence(tmp_path, Made("lora_bf16")).rows[0])
    assert line is not None
    assert (line.low, line.high) == ((), ())


def test_seeds_that_ended_at_different_steps_share_the_steps_they_have(tmp_path: Path) -> None:
    write_run(tmp_path, Made("lora_bf16"))
    folder = write_run(tmp_path, Made("lora_bf16", seed=1))
    record = read_json(folder / "record.json", RunRecord)
    assert record.training is not None
    short = record.training.model_copy(update={"losses": record.training.losses[:10]})
    write_json(folder / "record.json", record.model_copy(update={"training": short}))
    line = training_line(build_from(tmp_path).evidence.rows[0])
    assert line is not None
    assert len(line.x) == len(line.y) == 10


def test_few_curves_share_a_picture_and_many_have_one_each(tmp_path: Path) -> None:
    two = evidence(tmp_path / "two", Made("lora_bf16"), Made("qlora_nf4"))
    few = figures(loss_section(two))["loss-train"]
    assert isinstance(few.drawing, Curves)
    variants = ("lora_bf16", "qlora_nf4", "qlora_nf4_dq", "qlora_fp4")
    many = figures(loss_section(evidence(tmp_path / "four", *map(Made, variants))))["loss-train"]
    assert isinstance(many.drawing, Multiples)
    assert {line.label for line in many.drawing.lines} == set(variants)
    assert "in grey lora_bf16" in many.caption


def test_held_out_loss_stands_before_and_after(tmp_path: Path) -> None:
    found = evidence(tmp_path, Made("lora_bf16", log_ratio=-0.2, seed_noise=0.0), Made("base"))
    figure = figures(loss_section(found))["loss-held-out"]
    assert isinstance(figure.drawing, Panels)
    (bar,) = figure.drawing.bars
    assert bar.label == "lora_bf16", "an untrained row has nothing before"
    (after,), (before,) = bar.values, bar.beside
    assert after is not None
    assert before is not None
    assert after - before == pytest.approx(-0.2, abs=0.01)


def ranks(*values: int, **more: str) -> list[Made]:
    lines = tuple(f"{key.replace('__', '.')}={value}" for key, value in more.items())
    return [
        Made("lora_bf16", settings=(f"adapter.r={rank}", *lines), log_ratio=-rank / 100)
        for rank in values
    ]


def test_ranks_that_differ_in_nothing_else_are_joined_in_their_order(tmp_path: Path) -> None:
    section = sweep_section(evidence(tmp_path, *ranks(64, 4, 32)))
    drawing = figures(section)["sweep-r"].drawing
    assert isinstance(drawing, Curves)
    (line,) = drawing.lines
    assert line.x == (4, 32, 64)
    assert list(line.y) == sorted(line.y, reverse=True)
    assert "Each curve joins variants that differ only in this setting" in said(section)


def test_another_learning_rate_makes_another_curve(tmp_path: Path) -> None:
    other = ranks(4, 8, training__learning_rate="0.001")
    section = sweep_section(evidence(tmp_path, *ranks(4, 8), *other))
    drawing = figures(section)["sweep-r"].drawing
    assert isinstance(drawing, Curves)
    assert [line.x for line in drawing.lines] == [(4, 8), (4, 8)]


def test_one_value_of_a_setting_is_no_sweep(tmp_path: Path) -> None:
    assert sweep_section(evidence(tmp_path, Made("lora_bf16"), Made("qlora_nf4"))) is None
    assert sweep_section(evidence(tmp_path / "none", Made("lora_bf16", status="oom"))) is None


def test_sequence_lengths_are_swept_too(tmp_path: Path) -> None:
    runs = [
        Made("lora_bf16", settings=(f"training.sequence_length={length}",)) for length in (128, 256)
    ]
    figure = figures(sweep_section(evidence(tmp_path, *runs)))["sweep-sequence-length"]
    assert figure.caption == "perplexity by sequence length, tokens"
