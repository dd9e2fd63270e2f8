"""Costs: memory by phase, predicted beside measured, and time by phase."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness import numbers
from harness.records.record import COSTED
from harness.report.blocks import (
    Block,
    Cell,
    Column,
    Details,
    Figure,
    Section,
    Table,
    prose,
    unknown,
)
from harness.report.cells import memory_cell, spread_cell
from harness.report.evidence import Evidence
from harness.report.figures.bars import Bar
from harness.report.figures.canvas import Axis
from harness.report.figures.panels import Panels
from harness.report.figures.stacks import Stacks
from harness.report.machines import apart_said
from harness.report.rows import MEMORY_KINDS, Row, twins
from harness.report.ties import CostOrder, memory_order

METERED: tuple[str, ...] = tuple(phase for phase in COSTED if phase not in ("fetch", "save"))
DRAWN = 40
SECONDS = ("seconds", "s", 1)


def memory_section(evidence: Evidence) -> Section | None:
    """Peak memory by phase beside the planner's prediction."""
    rows = [row for row in evidence.ranked if row.finished or row.records[0].phases]
    parts = [
        phase
        for phase in METERED
        if any(row.peak_bytes(evidence.memory_kind, (phase,)) is not None for row in rows)
    ]
    if not parts:
        return None
    bars = tuple(
        Bar(
            label=row.label,
            mark=row.mark,
            values=tuple(_gib(row.peak_bytes(evidence.memory_kind, (p,))) for p in parts),
            beside=tuple(_gib(_predicted(row, part)) for part in parts),
        )
        for row in rows[:DRAWN]
    )
    kind = MEMORY_KINDS[evidence.memory_kind]
    alt = f"Peak memory by phase ({kind}), measured and predicted; the numbers are in the table."
    figure = Figure(
        "memory-by-phase",
        f"Peak memory by phase ({kind}), measured (filled) beside predicted (hollow)",
        alt,
        Panels(Axis(f"peak memory, GiB ({kind})"), tuple(parts), bars),
    )
    note = prose(
        "Every phase has a peak of its own. Predictions were made from the plan and the "
        "lengths of the training rows, before a model was loaded. Values are medians over "
        "the runs; failed runs show the peak that they reached."
        + (" Scoring that was reused is left out; see time by phase." if _reused(rows) else "")
        + _not_predicted(rows)
        + _warm(evidence, rows)
    )
    surprises = [prose(text) for text in (apart_said(rows), *_surprises(evidence)) if text]
    table = Details("Memory by phase as numbers", (_memory_table(evidence, rows, parts),))
    return Section("memory", "Memory by phase", (note, figure, *surprises, table))


def _not_predicted(rows: list[Row]) -> str:
    """Names the rows whose model the planner could not rehearse."""
    named = [row.label for row in rows if row.finished and row.records[0].prediction is None]
    if not named:
        return ""
    return (
        f" Not predicted: {numbers.some_of(named, 5)} (a training step could not be simulated "
        "without weights, or the record does not say)."
    )


def _warm(evidence: Evidence, rows: list[Row]) -> str:
    """Names the rows whose resident memory reads lower, since they were forked."""
    forked = _forked(rows)
    if evidence.memory_kind != "peak_resident_bytes" or not forked:
        return ""
    return (
        f" {forked} A fork's resident memory lacks the pages of library files "
        "that it has not touched, and all libraries are loaded "
        "from its first phase on, so it reads lower than that of the other runs, which loaded "
        "each library when they needed it."
    )


def _forked(rows: list[Row]) -> str:
    """Names the rows with runs that were forked where others were not; empty where all agree."""
    runs = [(row.label, one.warm) for row in rows for one in row.finished]
    if len({warm for _, warm in runs}) < 2:
        return ""
    named = sorted({label for label, warm in runs if warm})
    return f"Forked from a process that had loaded all libraries: {numbers.some_of(named, 5)}."


def _surprises(evidence: Evidence) -> Iterator[str]:
    """Quantized rows that train in more memory than their unquantized twins, and why."""
    for row, other in twins([row for row in evidence.ranked if row.plan.trains and row.finished]):
        kind = evidence.measures[row.label]  # twins ran on one device
        own, twin = row.peak_bytes(kind, ("train",)), other.peak_bytes(kind, ("train",))
        quantized = row.plan.quantization.type != "none" and other.plan.quantization.type == "none"
        if quantized and own and twin and own > twin and not _tied(evidence, row, other):
            weights = f"{numbers.size(row.weight_bytes)} against {numbers.size(other.weight_bytes)}"
            peaks = f"{numbers.size(own)} against {numbers.size(twin)}"
            yield (
                f"{row.label} trains in more memory than {other.label} ({peaks}) although its "
                f"weights are smaller ({weights}): with a small model, activations, logits and "
                "dequantized copies of weights outweigh the weights."
            )


def _tied(evidence: Evidence, row: Row, other: Row) -> bool:
    """Whether two peaks of training on one device differ by no more than repeated runs do.

    By as much as in the decision, so that both call the same a tie.
    """
    kind = evidence.measures[row.label]
    alike = memory_order(evidence.beside(row), kind).alike
    return CostOrder(lambda one: one.peak_bytes(kind, ("train",)), alike).tied(row, other)


def _gib(value: int | None) -> float | None:
    return None if value is None else float(f"{value / 2**30:.6g}")


def _predicted(row: Row, phase: str) -> int | None:
    prediction = row.records[0].prediction
    if prediction is None or (phase in ("prepare", "train") and not row.plan.trains):
        return None
    return prediction.by_phase.get(phase)


def _memory_table(evidence: Evidence, rows: list[Row], parts: list[str]) -> Table:
    columns = [Column("variant", number=False)]
    for part in parts:
        columns += [Column(part), Column(f"{part} predicted")]
    cells = []
    for row in rows:
        line = [Cell(row.label, row.label, style="code")]
        for part in parts:
            line.append(memory_cell(row.peaks(evidence.memory_kind, (part,))))
            line.append(_size(_predicted(row, part)))
        cells.append(tuple(line))
    caption = f"{MEMORY_KINDS[evidence.memory_kind]}; median over the runs (lowest–highest)."
    return Table("memory", tuple(columns), tuple(cells), caption[:1].upper() + caption[1:])


def _size(value: int | None) -> Cell:
    return unknown() if value is None else Cell(numbers.size(value), value)


def time_section(evidence: Evidence) -> Section | None:
    """Seconds by phase."""
    rows = [row for row in evidence.ranked if row.records[0].phases]
    if not rows:
        return None
    phases = _alike(rows)
    known = {row.label: [row.phase_seconds(phase) for phase in phases] for row in rows}
    totals = {label: sum(value or 0 for value in values) for label, values in known.items()}
    unit, short, seconds = ("minutes", "min", 60) if max(totals.values()) > 180 else SECONDS
    bars = tuple(
        Bar(
            label=row.label,
            mark=row.mark,
            values=tuple(None if v is None else v / seconds for v in known[row.label]),
            total=f"{numbers.number(totals[row.label] / seconds, digits=3)} {short}",
        )
        for row in rows[:DRAWN]
    )
    left_out = [phase for phase in COSTED if phase not in phases and _any_did(rows, phase)]
    without = f", without {' and '.join(left_out)}, which not every run did" if left_out else ""
    figure = Figure(
        "time-by-phase",
        f"Time by phase (median over seeds{without})",
        "Time by phase: " + "; ".join(f"{bar.label} {bar.total}" for bar in bars[:12]),
        Stacks(Axis(f"time, {unit}"), phases, bars),
    )
    blocks: list[Block] = [figure, Details("Time as numbers", (_times(rows),))]
    if apart := apart_said(rows):
        blocks.insert(0, prose(apart))
    reused = _reused(rows)
    if reused:
        text = (
            "An untrained model is scored once and other runs reuse its scores; a phase that was "
            f"reused is left out of the medians. Reused: {', '.join(reused)}."
        )
        blocks.insert(0, prose(text))
    if forked := _forked(rows):
        text = (
            f"{forked} Their run time in the ranking lacks the loading of libraries, which the run "
            "time of the other runs includes."
        )
        blocks.insert(0, prose(text))
    return Section("time", "Time by phase", tuple(blocks))


def _alike(rows: list[Row]) -> tuple[str, ...]:
    """Phases that all rows of a kind did themselves, so that the totals compare like with like.

    A score taken over from another run costs nothing: beside rows that took theirs over, the one
    that worked would look slow.
    """
    groups = [[row for row in rows if row.plan.trains is kind] for kind in (True, False)]
    return tuple(
        phase
        for phase in COSTED
        if _any_did(rows, phase)
        and all(
            not _any_did(group, phase) or all(row.times(phase) for row in group if row.finished)
            for group in groups
        )
        and not any(row.reused(phase) for row in rows)
    )


def _any_did(rows: list[Row], phase: str) -> bool:
    return any(row.times(phase) for row in rows)


def _reused(rows: list[Row]) -> list[str]:
    """Phases that took over what another run had found, and in how many runs."""
    found = []
    for phase in COSTED:
        asked = [row for row in rows if row.reused(phase)]
        if asked:
            runs = sum(len(row.finished or row.records) for row in asked)
            count = sum(row.reused(phase) for row in asked)
            found.append(f"{phase} in {count} of the {runs} runs of {_few(asked)}")
    return found


def _few(rows: list[Row]) -> str:
    return rows[0].label if len(rows) == 1 else f"{len(rows)} variants"


def _times(rows: list[Row]) -> Table:
    phases = _listed(rows)
    columns = [Column("variant", number=False), *(Column(phase) for phase in phases)]
    columns += [Column("steps"), Column("compile"), Column("tokens/s p10–p90")]
    columns.append(Column("warm-up steps left out"))
    caption = (
        "Medians over the runs (lowest–highest). The phase train holds the steps, compiling and "
        "set-up. Tokens/s are those of the steps after warm-up."
    )
    return Table("time", tuple(columns), tuple(_time_cells(row, phases) for row in rows), caption)


def _listed(rows: list[Row]) -> list[str]:
    """All phases; that of validating while training only where it was asked for."""
    return [phase for phase in COSTED if phase != "validate" or _any_did(rows, phase)]


def _time_cells(row: Row, phases: Sequence[str]) -> tuple[Cell, ...]:
    cells = [Cell(row.label, row.label, style="code")]
    cells += [spread_cell(row.times(phase), numbers.duration) for phase in phases]
    cells.append(spread_cell(row.step_times(), numbers.duration))
    trainings = [record.training for record in row.measured if record.training]
    if not trainings:
        return (*cells, unknown(), unknown(), unknown())
    compiled = sorted(t.compile_seconds for t in trainings if t.compile_seconds is not None)
    cells.append(spread_cell(compiled, numbers.duration))
    low = row.median(lambda one: one.training.throughput.p10 if one.training else None)
    high = row.median(lambda one: one.training.throughput.p90 if one.training else None)
    if low is None or high is None:
        cells.append(unknown())
    else:
        text = f"{numbers.number(low, digits=3)}–{numbers.number(high, digits=3)}"
        cells.append(Cell(text, low))
    warmup = trainings[0].throughput.warmup_steps
    return (*cells, Cell(str(warmup), warmup))
