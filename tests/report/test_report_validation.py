"""The report shows the validation curve, which weights were kept and who stopped early."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.records.record import PhaseCost, RunRecord
from harness.records.validation import ValidationPoint, ValidationResult
from harness.report.blocks import Block, Caveat, Details, Figure, Prose, Table
from harness.report.curves import loss_section
from harness.report.figures.lines import Curves
from harness.spec.storage import read_json, write_json
from harness.spec.suite import Validation
from tests.report.records import Made, build_from, write_run

FALLING = (2.5, 2.2, 2.1, 2.05, 2.0)


def validated(
    root: Path, variant: str, losses: Sequence[float], seed: int = 0, keep: str = "best"
) -> None:
    """A synthetic run that was validated every ten steps of a budget of forty."""
    folder = write_run(root, Made(variant, seed=seed))
    record = read_json(folder / "record.json", RunRecord)
    points = tuple(
        ValidationPoint(step=10 * index, tokens=7000 * index, loss=loss, seconds=1.5)
        for index, loss in enumerate(losses)
    )
    early = len(losses) < len(FALLING)
    lowest = min(points, key=lambda point: point.loss).step
    result = ValidationResult(
        points=points,
        kept_step=lowest if keep == "best" else points[-1].step,
        stopped="patience" if early else "budget",
    )
    assert record.training is not None
    settings = Validation.model_validate({"every": 10, "keep": keep, "patience": 2})
    cost = PhaseCost(name="validate", seconds=1.5 * len(points))
    changes = {
        "plan": record.plan.model_copy(update={"validation": settings}),
        "training": record.training.model_copy(update={"validation": result}),
        "phases": (*record.phases, cost),
    }
    write_json(folder / "record.json", record.model_copy(update=changes))


def blocks(root: Path) -> tuple[Block, ...]:
    section = loss_section(build_from(root).evidence)
    assert section is not None
    return section.blocks


def curves(root: Path) -> dict[str, Curves]:
    return {
        block.name: block.drawing
        for block in blocks(root)
        if isinstance(block, Figure) and isinstance(block.drawing, Curves)
    }


def table(root: Path) -> dict[str, list[str]]:
    (found,) = [one for one in blocks(root) if isinstance(one, Details)]
    (inner,) = found.blocks
    assert isinstance(inner, Table)
    return {row[0].text: [cell.text for cell in row[1:]] for row in inner.rows}


def test_curves_that_overlap_are_also_drawn_as_differences(tmp_path: Path) -> None:
    for seed in (0, 1):
        validated(tmp_path, "lora_bf16", FALLING, seed)
        validated(tmp_path, "qlora_nf4", [loss + 0.01 for loss in FALLING], seed)
    found = curves(tmp_path)
    (line,) = found["loss-validation-differences"].lines
    assert line.label == "qlora_nf4"
    assert line.x == (0, 10, 20, 30, 40)
    assert line.y == pytest.approx([0.01] * 5)
    assert len(found["loss-validation"].lines) == 2


def test_curves_that_lie_apart_need_no_differences(tmp_path: Path) -> None:
    validated(tmp_path, "lora_bf16", FALLING)
    validated(tmp_path, "qlora_nf4", [loss + 0.4 for loss in FALLING])
    assert "loss-validation-differences" not in curves(tmp_path)


def test_seeds_that_stopped_at_different_steps_share_the_curve_they_have_in_common(
    tmp_path: Path,
) -> None:
    validated(tmp_path, "lora_bf16", FALLING, 0)
    validated(tmp_path, "lora_bf16", (2.5, 2.2, 2.3, 2.4), 1)
    (line,) = curves(tmp_path)["loss-validation"].lines
    assert line.x == (0, 10, 20, 30)
    assert (line.low[2], line.high[2]) == (2.1, 2.3)


def test_who_stopped_early_and_which_weights_were_kept_is_said(tmp_path: Path) -> None:
    validated(tmp_path, "lora_bf16", FALLING)
    validated(tmp_path, "qlora_nf4", (2.5, 2.2, 2.3, 2.4))
    (note,) = [one.text for one in blocks(tmp_path) if isinstance(one, Caveat)]
    assert "qlora_nf4 after step 30" in note
    assert "lora_bf16" not in note
    (text, *_) = [one.text for one in blocks(tmp_path) if isinstance(one, Prose)]
    assert "weights with the lowest validation loss" in text
    assert table(tmp_path) == {
        "lora_bf16": ["2.0000", "40", "2.0000", "40", "budget", "5", "7.5 s"],
        "qlora_nf4": ["2.2000", "10", "2.4000", "10", "patience", "4", "6.0 s"],
    }


def test_without_validation_the_section_is_as_it_was(tmp_path: Path) -> None:
    write_run(tmp_path, Made("lora_bf16"))
    names = {one.name for one in blocks(tmp_path) if isinstance(one, Figure)}
    assert names == {"loss-train", "loss-held-out"}
    assert not [one for one in blocks(tmp_path) if isinstance(one, Caveat | Details)]
