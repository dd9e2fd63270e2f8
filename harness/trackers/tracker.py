"""Tracker: a listener that turns events and records into named numbers for another program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from harness.records.events import Advanced, Event, Pulse, Validated
from harness.records.record import RunRecord
from harness.runs.listener import Listener, RunResult
from harness.spec.plan import Plan

PROJECT = "finetune-harness"
PAGES = ("report.md", "report.html")
Axis = Literal["step", "second"]


class Tracker(Listener):
    """Calls ``start``, ``log`` and ``finish`` for each run; a tracker fills these in.

    A run that was made earlier, and is not made again, is told from its record, so that its
    curve is there too. Runs of one batch may overlap.
    """

    def __init__(self, folder: Path) -> None:
        """Keep what lies on this machine below ``folder``."""
        self.folder = folder
        self._begun: dict[str, float | None] = {}

    def start(self, plan: Plan) -> None:
        """A run begins."""

    def log(self, plan: Plan, axis: Axis, at: int, numbers: Mapping[str, float]) -> None:
        """Numbers of a run by name, such as train/loss, at a step or a second of it."""

    def finish(self, plan: Plan, summary: Mapping[str, float], status: str) -> None:
        """A run has ended, with its scores and costs by name."""

    def keep_report(self, suite: str, pages: list[Path]) -> None:
        """The report of a suite has been written; ``pages`` are its files."""

    @property
    def place(self) -> str:
        """Where a person finds what was tracked."""
        return str(self.folder)

    def hear(self, plan: Plan, event: Event) -> None:
        """Pass on losses, of training and of the validation split, and memory."""
        self._begin(plan)
        if isinstance(event, Advanced) and "loss" in event.numbers:
            numbers = {f"train/{name}": value for name, value in event.numbers.items()}
            self.log(plan, "step", event.done, numbers)
        elif isinstance(event, Validated):
            self.log(plan, "step", event.point.step, {"validation/loss": event.point.loss})
        elif isinstance(event, Pulse) and event.numbers:
            first = self._begun[plan.run_name]
            first = event.clock if first is None else first
            self._begun[plan.run_name] = first
            memory = {f"memory/{name}": value for name, value in event.numbers.items()}
            self.log(plan, "second", max(0, round(event.clock - first)), memory)

    def result(self, result: RunResult) -> None:
        """Pass on how a run ended, its scores and its costs."""
        plan, record = result.plan, result.record
        if record is not None and plan.run_name not in self._begun:
            self._begin(plan)
            self._replay(plan, record)
        if plan.run_name not in self._begun:
            return
        del self._begun[plan.run_name]
        if record is None:
            self.finish(plan, {}, "failed")
        else:
            self.finish(plan, summary_of(record), record.status)

    def end(self) -> None:
        """What was begun and has no result was cut short; the client closes it."""
        self._begun.clear()

    def _begin(self, plan: Plan) -> None:
        if plan.run_name not in self._begun:
            self._begun[plan.run_name] = None
            self.start(plan)

    def _replay(self, plan: Plan, record: RunRecord) -> None:
        """Tell a curve from its record, in the order of its steps."""
        training = record.training
        if training is None:
            return
        validation = () if training.validation is None else training.validation.points
        found = {point.step: {"validation/loss": point.loss} for point in validation}
        for point in training.losses:
            numbers = {"train/loss": point.loss}
            if point.seconds > 0:
                numbers["train/tokens_per_second"] = point.non_padding_tokens / point.seconds
            found[point.step] = numbers | found.get(point.step, {})
        for step in sorted(found):
            self.log(plan, "step", step, found[step])


def summary_of(record: RunRecord) -> dict[str, float]:
    """Scores and costs of a run by name, such as after/held_out/perplexity or seconds/train."""
    found: dict[str, float] = {"seconds/run": record.seconds}
    for score in record.scores:
        form = "" if score.precision == "training" else f"/{score.precision}"
        found[f"{score.stage}/{score.task}/{score.metric}{form}"] = score.value
    for phase in record.phases:
        found[f"seconds/{phase.name}"] = phase.seconds
        peak = phase.peak_allocated_bytes or phase.peak_resident_bytes
        if peak is not None:
            found[f"peak_bytes/{phase.name}"] = float(peak)
    return found


def settings_of(plan: Plan) -> dict[str, Any]:
    """The plan as plain data, without what only says how it was asked for."""
    return plan.model_dump(
        mode="json", exclude={"request", "protocol", "substitutions", "schema_version"}
    )


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested table as dotted names with text values."""
    found: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = str(value)
    return found


def title_of(plan: Plan) -> str:
    """What a run is called in a tracker."""
    return f"{plan.variant}, seed {plan.seed}"
