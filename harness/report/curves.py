"""Curves: loss by step, held-out loss before and after, and quality by rank or sequence length."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

from harness.records.record import RunRecord
from harness.report.blocks import Block, Figure, Section, prose
from harness.report.evidence import Evidence
from harness.report.figures.bars import Bar
from harness.report.figures.canvas import Axis, Drawing
from harness.report.figures.lines import Curves, Line
from harness.report.figures.multiples import Multiples
from harness.report.figures.panels import Panels
from harness.report.rows import Row
from harness.report.scoring import Scoring
from harness.report.settings import flatten, settings
from harness.report.validation import validation_blocks

NAMED = 12
OVERLAPPING = 3
SMOOTHING = 5


def loss_section(evidence: Evidence) -> Section | None:
    """Training loss by step, validation loss, and held-out loss before and after training."""
    trained = [row for row in evidence.ranked if any(r.training for r in row.finished)]
    lines = [line for row in trained if (line := training_line(row)) is not None]
    if not lines:
        return None
    title = "training loss, nats per assistant token"
    steps = f"running mean over {SMOOTHING} steps"
    reference = evidence.reference if any(x.label == evidence.reference for x in lines) else None
    drawing: Drawing = _curves(Axis("optimizer step"), Axis(title), lines)
    behind = ""
    if len(lines) > OVERLAPPING:
        axis = Axis("training loss, nats per token")
        drawing = Multiples(Axis("optimizer step"), axis, tuple(lines), reference)
        behind = f"; in grey {reference}" if reference else ""
    train = Figure(
        "loss-train",
        f"Training loss ({steps}; bands span the seeds{behind})"
        + (_limited(lines) if len(lines) <= OVERLAPPING else ""),
        f"{title} by optimizer step: " + _ends(lines),
        drawing,
    )
    return Section(
        "loss", "Loss curves", (train, *validation_blocks(evidence), *_held_out(evidence))
    )


def _limited(lines: Sequence[Line]) -> str:
    return f"; the best {NAMED} of {len(lines)} are named" if len(lines) > NAMED else ""


def _ends(lines: Sequence[Line]) -> str:
    return ", ".join(f"{line.label} ends at {line.y[-1]:.3g}" for line in lines[:NAMED])


def _curves(x: Axis, y: Axis, lines: Sequence[Line], *, marked: bool = False) -> Curves:
    return Curves(x, y, tuple(lines[:NAMED]), faint=tuple(lines[NAMED:]), marked=marked)


def training_line(row: Row) -> Line | None:
    """The smoothed training loss of a row, mean and range of its seeds."""
    runs = [
        [point.loss for point in record.training.losses]
        for record in row.finished
        if record.training is not None and record.training.losses
    ]
    if not runs:
        return None
    length = min(len(losses) for losses in runs)
    smooth = [running_mean(losses[:length], SMOOTHING) for losses in runs]
    steps = tuple(float(step + 1) for step in range(length))
    at = list(zip(*smooth, strict=True))
    several = len(runs) > 1
    return Line(
        label=row.label,
        mark=row.mark,
        x=steps,
        y=tuple(_rounded(sum(values) / len(values)) for values in at),
        low=tuple(_rounded(min(values)) for values in at) if several else (),
        high=tuple(_rounded(max(values)) for values in at) if several else (),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """Centred mean over ``width`` values, over fewer at both ends."""
    half = width // 2
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _held_out(evidence: Evidence) -> list[Block]:
    """Held-out loss before and after training, a line a variant: curves would overlap."""
    main = evidence.main
    if main is None or main.scale.transform != "exp":
        return []
    bars = []
    for row in evidence.ranked:
        values = [_before_after(main, record) for record in row.finished if row.plan.trains]
        pairs = [pair for pair in values if pair is not None]
        if pairs:
            before, after = (sum(side) / len(side) for side in zip(*pairs, strict=True))
            bars.append(Bar(row.label, row.mark, (_rounded(after),), (_rounded(before),)))
    if not bars:
        return []
    title = "held-out loss, nats per assistant token"
    alt = f"{title}, before and after training: " + ", ".join(
        f"{bar.label} {bar.beside[0]:.4g} to {bar.values[0]:.4g}" for bar in bars[:NAMED]
    )
    caption = "Held-out loss before and after training (means over the seeds)"
    drawing = Panels(Axis(title), ("",), tuple(bars), told=("after", "before"), from_zero=False)
    return [Figure("loss-held-out", caption, alt, drawing)]


def _before_after(main: Scoring, record: RunRecord) -> tuple[float, float] | None:
    key = main.key
    before = record.score(key.task, key.metric, "before", key.precision)
    after = key.find(record)
    if before is None or after is None or record.training is None:
        return None
    return math.log(before.value), math.log(after.value)


def sweep_section(evidence: Evidence) -> Section | None:
    """Quality by rank and by sequence length, for variants that differ in nothing else."""
    if evidence.main is None:
        return None
    sweeps: tuple[tuple[str, str, Callable[[Row], object]], ...] = (
        ("adapter.r", "rank", lambda row: _field(row, "r")),
        ("training.sequence_length", "sequence length, tokens", _length),
    )
    blocks: list[Block] = []
    for key, title, read in sweeps:
        lines = _sweep_lines(evidence, evidence.main, key, read)
        if lines:
            blocks.append(_sweep_figure(evidence.main, key, title, lines))
    if not blocks:
        return None
    note = prose(
        "Each curve joins variants that differ only in this setting (alpha stays as planned, "
        "so the adapter's scale alpha/r changes with the rank). Bars are 95 % intervals of "
        f"the difference from {evidence.reference} on the same items."
    )
    return Section("sweeps", "Rank and sequence length", (note, *blocks))


def _field(row: Row, name: str) -> object:
    return row.plan.adapter.fields.get(name) if row.plan.adapter else None


def _length(row: Row) -> object:
    return row.plan.training.sequence_length if row.plan.trains else None


def _sweep_lines(
    evidence: Evidence, main: Scoring, key: str, read: Callable[[Row], object]
) -> list[Line]:
    groups: dict[str, list[tuple[float, Row]]] = {}
    for row in evidence.rows:
        setting = read(row)
        if row.label in main.values and isinstance(setting, int):
            groups.setdefault(_all_but(row, key), []).append((setting, row))
    lines = []
    for members in groups.values():
        by_setting = dict(sorted(members, key=lambda member: (member[0], member[1].label)))
        if len(by_setting) < 2:
            continue
        rows = list(by_setting.values())
        scores = [main.values[row.label] for row in rows]
        named = min(rows, key=lambda row: (len(row.label), row.label))
        bounds = [_bounds(main, row) for row in rows]
        lines.append(
            Line(
                label=named.label,
                mark=named.mark,
                x=tuple(by_setting),
                y=tuple(score.value for score in scores),
                low=tuple(
                    s.value if b[0] is None else b[0] for s, b in zip(scores, bounds, strict=True)
                ),
                high=tuple(
                    s.value if b[1] is None else b[1] for s, b in zip(scores, bounds, strict=True)
                ),
            )
        )
    return lines


def _bounds(main: Scoring, row: Row) -> tuple[float, float]:
    low, high = main.compared_interval(row.label)
    value = main.values[row.label].value
    return (value, value) if low is None or high is None else (low, high)


def _all_but(row: Row, key: str) -> str:
    flat = flatten(settings(row.plan, "variant"))
    flat.pop(key, None)
    return json.dumps(flat, sort_keys=True)


def _sweep_figure(main: Scoring, key: str, title: str, lines: list[Line]) -> Figure:
    better = "lower" if main.scale.direction == "lower" else "higher"
    drawing = Curves(
        Axis(title),
        Axis(main.key.title, better),  # type: ignore[arg-type]
        tuple(lines[:NAMED]),
        marked=True,
        doubling=True,
    )
    alt = f"{main.key.title} by {title}: " + "; ".join(
        f"{line.label} "
        + ", ".join(f"{y:.4g} at {x:g}" for x, y in zip(line.x, line.y, strict=True))
        for line in lines[:NAMED]
    )
    name = "sweep-" + key.rpartition(".")[2].replace("_", "-")
    return Figure(name, f"{main.key.title} by {title}", alt, drawing)
