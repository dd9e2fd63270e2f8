"""Validation: the curve of the validation loss, which weights were kept, and who stopped early."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from harness import numbers
from harness.records.validation import ValidationResult
from harness.report.blocks import (
    Block,
    Caveat,
    Cell,
    Column,
    Details,
    Figure,
    Table,
    prose,
    unknown,
)
from harness.report.cells import spread_cell
from harness.report.evidence import Evidence
from harness.report.figures.canvas import Axis
from harness.report.figures.lines import Curves, Line
from harness.report.rows import Row

NAMED = 12
OVERLAP = 0.15  # of the height of the figure: curves that end closer together are told apart
LOSS = "validation loss, nats per assistant token"
STEP = "optimizer step"


def validation_blocks(evidence: Evidence) -> list[Block]:
    """Curves of the validation loss; nothing where no run was validated while it trained."""
    rows = [row for row in evidence.ranked if _results(row)]
    lines = [line for row in rows if (line := _line(row)) is not None]
    if not lines:
        return []
    figure = Figure(
        "loss-validation",
        "Validation loss while training (means over the seeds; bands span them)",
        f"{LOSS}, by {STEP}: " + _ends(lines),
        _curves(Axis(LOSS), lines),
    )
    kept = prose(
        "The validation conversations come from message trees that are neither trained on nor "
        "held out. Their loss is taken while training pauses; its time and memory are no part of "
        f"training's. {_kept(rows)}"
    )
    table = Details("Validation as numbers", (_table(rows),))
    return [kept, *_stopped(rows), figure, *_differences(evidence, lines), table]


def _results(row: Row) -> list[ValidationResult]:
    return [
        record.training.validation
        for record in row.finished
        if record.training is not None and record.training.validation is not None
    ]


def _line(row: Row) -> Line | None:
    """The mean over the seeds at the steps that all of them were validated at."""
    runs = [{point.step: point.loss for point in one.points} for one in _results(row)]
    steps = sorted(set.intersection(*(set(run) for run in runs)))
    if not steps:
        return None
    at = [[run[step] for run in runs] for step in steps]
    several = len(runs) > 1
    return Line(
        label=row.label,
        mark=row.mark,
        x=tuple(float(step) for step in steps),
        y=tuple(_rounded(sum(values) / len(values)) for values in at),
        low=tuple(_rounded(min(values)) for values in at) if several else (),
        high=tuple(_rounded(max(values)) for values in at) if several else (),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def _curves(y: Axis, lines: Sequence[Line]) -> Curves:
    return Curves(Axis(STEP), y, tuple(lines[:NAMED]), faint=tuple(lines[NAMED:]))


def _ends(lines: Sequence[Line]) -> str:
    return ", ".join(f"{line.label} ends at {line.y[-1]:.4g}" for line in lines[:NAMED])


def _differences(evidence: Evidence, lines: Sequence[Line]) -> Iterator[Block]:
    """The curves less the reference's, where they end too close together to be told apart."""
    behind = next((line for line in lines if line.label == evidence.reference), None)
    others = [line for line in lines if line is not behind]
    ends = [line.y[-1] for line in lines]
    every = [value for line in lines for value in line.y]
    if behind is None or not others:
        return
    if max(ends) - min(ends) > OVERLAP * (max(every) - min(every)):
        return
    found = [less for line in others if (less := _less(line, behind)) is not None]
    if found:
        title = f"validation loss less that of {behind.label}, nats"
        yield Figure(
            "loss-validation-differences",
            f"The same curves less that of {behind.label}: below 0 is better",
            f"{title}, by {STEP}: " + _ends(found),
            _curves(Axis(title), found),
        )


def _less(line: Line, behind: Line) -> Line | None:
    at = dict(zip(behind.x, behind.y, strict=True))
    common = [(x, y - at[x]) for x, y in zip(line.x, line.y, strict=True) if x in at]
    if not common:
        return None
    steps, values = zip(*common, strict=True)
    return Line(line.label, line.mark, steps, tuple(_rounded(value) for value in values))


def _kept(rows: Sequence[Row]) -> str:
    best = {row.plan.validation.keep for row in rows} == {"best"}
    if best:
        return "Scored and saved are the weights with the lowest validation loss."
    return "Scored and saved are the weights after the last step, unless the table says otherwise."


def _stopped(rows: Sequence[Row]) -> Iterator[Block]:
    """Who trained less than the others because its validation loss no longer fell."""
    named = []
    for row in rows:
        runs = _results(row)
        early = sum(one.stopped == "patience" for one in runs)
        if early:
            steps = _range([one.points[-1].step for one in runs if one.stopped == "patience"])
            seeds = f" in {early} of {len(runs)} runs" if len(runs) > 1 else ""
            named.append(f"{row.label} after step {steps}{seeds}")
    if named:
        yield Caveat(
            "Training stopped before the budget was used, since the validation loss had found no "
            f"new low for as many validations as the suite allows: {'; '.join(named)}. What these "
            "trainings cost is less for it."
        )


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}–{high}"


def _table(rows: Sequence[Row]) -> Table:
    columns = (
        Column("variant", number=False),
        Column("lowest validation loss", better="lower"),
        Column("at step"),
        Column("last validation loss", better="lower"),
        Column("weights kept of step"),
        Column("ended by", number=False),
        Column("validations"),
        Column("their time"),
    )
    caption = "Means over the runs; steps of all of them."
    return Table("validation", columns, tuple(_cells(row) for row in rows), caption)


def _cells(row: Row) -> tuple[Cell, ...]:
    runs = _results(row)

    def mean(read: Callable[[ValidationResult], float]) -> Cell:
        value = sum(read(one) for one in runs) / len(runs)
        return Cell(numbers.number(value, digits=5), value)

    def steps(read: Callable[[ValidationResult], int]) -> Cell:
        found = [read(one) for one in runs]
        return Cell(_range(found), min(found))

    times = row.times("validate")
    return (
        Cell(row.label, row.label, style="code"),
        mean(lambda one: one.lowest.loss),
        steps(lambda one: one.lowest.step),
        mean(lambda one: one.points[-1].loss),
        steps(lambda one: one.kept_step),
        Cell(" and ".join(sorted({one.stopped for one in runs}))),
        steps(lambda one: len(one.points)),
        spread_cell(times, numbers.duration) if times else unknown(),
    )
