"""Tracker: what any tracker is told of a run, live or from its record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.errors import RunError
from harness.records.events import Advanced, Note, PhaseStarted, Pulse, Validated
from harness.records.record import (
    LossPoint,
    PhaseCost,
    RunRecord,
    Score,
    Throughput,
    Tokens,
    TrainResult,
)
from harness.records.validation import ValidationPoint, ValidationResult
from harness.runs.listener import RunResult
from harness.spec.plan import Plan
from harness.trackers.tracker import Axis, Tracker, flat, settings_of, summary_of, title_of
from tests.planned import planned
from tests.store_records import record_of

PLAN = planned("lora_bf16")


class Notebook(Tracker):
    """A tracker that writes down what it is told."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.told: list[tuple[object, ...]] = []

    def start(self, plan: Plan) -> None:
        self.told.append(("start", plan.variant))

    def log(self, plan: Plan, axis: Axis, at: int, numbers: Mapping[str, float]) -> None:
        del plan
        self.told.append((axis, at, dict(numbers)))

    def finish(self, plan: Plan, summary: Mapping[str, float], status: str) -> None:
        del plan
        self.told.append(("finish", sorted(summary), status))


@pytest.fixture
def notebook(tmp_path: Path) -> Notebook:
    return Notebook(tmp_path)


def point(step: int, loss: float, seconds: float = 0.5) -> LossPoint:
    return LossPoint(
        step=step,
        loss=loss,
        learning_rate=1e-4,
        grad_norm=1.0,
        seconds=seconds,
        non_padding_tokens=100,
    )


def validated(step: int, loss: float) -> ValidationPoint:
    return ValidationPoint(step=step, tokens=100 * step, loss=loss, seconds=0.1)


def trained() -> RunRecord:
    validation = ValidationResult(
        points=(validated(0, 3.0), validated(2, 2.0)), kept_step=2, stopped="budget"
    )
    training = TrainResult(
        steps=2,
        tokens=Tokens(assistant=50, non_padding=200, padded=220, truncated=0),
        losses=(point(1, 2.5), point(2, 2.25, seconds=0.0)),
        throughput=Throughput(warmup_steps=1, median=200.0, p10=None, p90=None),
        trainer="plain",
        validation=validation,
    )
    return record_of(PLAN, training=training)


def test_losses_memory_and_validations_are_passed_on_as_they_come(notebook: Notebook) -> None:
    for event in (
        PhaseStarted.now(phase="train"),
        Note.now(text="nothing for a curve"),
        Advanced.now(done=1, total=2, numbers={"loss": 2.5, "tokens_per_second": 200.0}),
        Advanced.now(done=9, total=10, numbers={"items": 3.0}),
        Validated.now(point=validated(2, 2.0)),
    ):
        notebook.hear(PLAN, event)
    assert notebook.told == [
        ("start", "lora_bf16"),
        ("step", 1, {"train/loss": 2.5, "train/tokens_per_second": 200.0}),
        ("step", 2, {"validation/loss": 2.0}),
    ]


def test_memory_is_told_by_the_seconds_of_the_run(notebook: Notebook) -> None:
    for clock in (100.0, 100.4, 107.0, 90.0):
        pulse = Pulse.now(numbers={"resident_bytes": clock}).model_copy(update={"clock": clock})
        notebook.hear(PLAN, pulse)
    notebook.hear(PLAN, Pulse.now(numbers={}))
    seconds = [told[1] for told in notebook.told if told[0] == "second"]
    assert seconds == [0, 0, 7, 0], "never before its beginning"


def test_a_run_ends_once_with_its_scores_and_its_status(notebook: Notebook) -> None:
    notebook.hear(PLAN, PhaseStarted.now(phase="fetch"))
    result = RunResult(PLAN, trained(), None)
    notebook.result(result)
    assert notebook.told[-1] == ("finish", ["seconds/run"], "ok")
    assert [told[0] for told in notebook.told] == ["start", "finish"], "nothing is told twice"


def test_a_run_that_was_made_before_is_told_from_its_record(notebook: Notebook) -> None:
    notebook.result(RunResult(PLAN, trained(), None))
    assert notebook.told == [
        ("start", "lora_bf16"),
        ("step", 0, {"validation/loss": 3.0}),
        ("step", 1, {"train/loss": 2.5, "train/tokens_per_second": 200.0}),
        ("step", 2, {"train/loss": 2.25, "validation/loss": 2.0}),
        ("finish", ["seconds/run"], "ok"),
    ]


def test_an_untrained_record_has_no_curve(notebook: Notebook) -> None:
    notebook.result(RunResult(PLAN, record_of(PLAN), None))
    assert [told[0] for told in notebook.told] == ["start", "finish"]


def test_a_plan_that_never_became_a_run_is_not_told(notebook: Notebook) -> None:
    notebook.result(RunResult(PLAN, None, RunError("no such model")))
    assert notebook.told == []


def test_a_run_that_ended_without_a_record_has_failed(notebook: Notebook) -> None:
    notebook.hear(PLAN, PhaseStarted.now(phase="fetch"))
    notebook.result(RunResult(PLAN, None, RunError("the disk is full")))
    assert notebook.told[-1] == ("finish", [], "failed")


def test_runs_of_one_batch_may_overlap(notebook: Notebook) -> None:
    other = planned("qlora_nf4")
    notebook.hear(PLAN, PhaseStarted.now(phase="train"))
    notebook.hear(other, PhaseStarted.now(phase="train"))
    notebook.hear(PLAN, PhaseStarted.now(phase="score"))
    assert [told[1] for told in notebook.told] == ["lora_bf16", "qlora_nf4"]


def test_what_was_cut_short_is_forgotten(notebook: Notebook) -> None:
    notebook.hear(PLAN, PhaseStarted.now(phase="train"))
    notebook.end()
    notebook.hear(PLAN, PhaseStarted.now(phase="train"))
    assert [told[0] for told in notebook.told] == ["start", "start"]


def test_a_summary_names_stage_task_metric_form_and_phase() -> None:
    scores = tuple(
        Score(
            task="held_out",
            metric="perplexity",
            stage="after",
            value=value,
            standard_error=None,
            n=3,
            unit="per token",
            direction="lower",
            precision=precision,
        )
        for precision, value in (("training", 8.0), ("merged", 8.5))
    )
    phases = (
        PhaseCost(name="load", seconds=3.0, peak_resident_bytes=100),
        PhaseCost(name="train", seconds=5.0, peak_resident_bytes=100, peak_allocated_bytes=70),
        PhaseCost(name="save", seconds=1.0),
    )
    assert summary_of(record_of(PLAN, scores=scores, phases=phases)) == {
        "seconds/run": 1.5,
        "after/held_out/perplexity": 8.0,
        "after/held_out/perplexity/merged": 8.5,
        "seconds/load": 3.0,
        "peak_bytes/load": 100.0,
        "seconds/train": 5.0,
        "peak_bytes/train": 70.0,
        "seconds/save": 1.0,
    }


def test_settings_are_the_plan_s_as_dotted_names() -> None:
    found = flat(settings_of(PLAN))
    assert found["training.learning_rate"] == "0.0002"
    assert found["adapter.type"] == "LORA"
    assert not any(key.startswith(("request", "substitutions")) for key in found)
    assert title_of(PLAN) == "lora_bf16, seed 0"
    assert flat({"a": {"b": {"c": None}}, "d": [1]}) == {"a.b.c": "None", "d": "[1]"}


def test_a_tracker_lies_where_its_files_are(notebook: Notebook, tmp_path: Path) -> None:
    assert notebook.place == str(tmp_path)
    notebook.keep_report("quick", [])
    assert notebook.told == []
