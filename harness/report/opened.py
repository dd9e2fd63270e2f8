"""Opened: all that is kept of one row, which a page shows where the row is opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.records.record import RunRecord
from harness.records.store import StoredRun
from harness.report.blocks import Block, Cell, Chart, Code, Column, Details, Section, Table, prose
from harness.report.curves import SMOOTHING, running_mean, training_line
from harness.report.evidence import Evidence
from harness.report.figures.canvas import PALETTE
from harness.report.figures.spark import SparkLine, spark
from harness.report.provenance import flat_plan
from harness.report.reproduce import commands
from harness.report.rows import Row
from harness.report.settings import plain

LONGEST = 60


def opened_section(evidence: Evidence) -> Section | None:
    """A fold for each row: its settings against the reference's, its files and its command."""
    if not evidence.rows:
        return None
    folds = tuple(
        Details(row.label, tuple(_told(evidence, row)), name=anchor(evidence, row))
        for row in evidence.ranked
    )
    return Section("variants", "Each variant", folds)


def anchor(evidence: Evidence, row: Row) -> str:
    """The name of a row's fold."""
    return f"variant-{evidence.ranked.index(row) + 1}"


def _told(evidence: Evidence, row: Row) -> list[Block]:
    typed = Code("\n".join(commands(record.plan for record in row.records)), "sh")
    curve = _curve(evidence, row)
    told: list[Block] = [_against_reference(evidence, row)]
    return [*told, *([] if curve is None else [curve]), typed, _files(evidence, row)]


def _curve(evidence: Evidence, row: Row) -> Chart | None:
    """The training loss of every seed, with the reference's mean behind it."""
    shade = PALETTE[row.mark.colour]
    threads = [
        SparkLine(_smooth(record), shade, f"{row.label}, seed {record.plan.seed}")
        for record in row.records
        if record.training is not None and len(record.training.losses) > 1
    ]
    if not threads:
        return None
    caption = f"Training loss of {row.label}, nats per assistant token, a curve for each seed"
    if evidence.reference not in (None, row.label):
        line = training_line(evidence.by_label[evidence.reference])
        if line is not None and len(line.x) > 1:
            points = tuple(zip(line.x, line.y, strict=True))
            threads.append(SparkLine(points, "", line.label, faint=True))
            caption += f"; grey: {line.label}"
    ends = ", ".join(f"{thread.points[-1][1]:.3g}" for thread in threads if not thread.faint)
    return Chart(spark(threads, f"{caption}. It ends at {ends}"), f"{caption}.")


def _smooth(record: RunRecord) -> tuple[tuple[float, float], ...]:
    points = record.training.losses if record.training is not None else ()
    means = running_mean([point.loss for point in points], SMOOTHING)
    return tuple((point.step + 1, mean) for point, mean in zip(points, means, strict=True))


def _against_reference(evidence: Evidence, row: Row) -> Block:
    """The settings that differ from the reference's."""
    if row.label == evidence.reference or evidence.reference is None:
        return prose("The others are compared with this variant.")
    own, theirs = flat_plan(row), flat_plan(evidence.by_label[evidence.reference])
    keys = [key for key in sorted({*own, *theirs}) if _text(own, key) != _text(theirs, key)]
    if not row.plan.trains:
        keys = [key for key in keys if key in own]
    if not keys:
        return prose(f"Its plan does not differ from that of {evidence.reference}.")
    columns = (
        Column("setting", number=False),
        Column("here", number=False),
        Column(evidence.reference, number=False),
    )
    rows = tuple(
        (Cell(key, key, style="code"), Cell(_text(own, key)), Cell(_text(theirs, key)))
        for key in keys
    )
    return Table(f"against-{anchor(evidence, row)}", columns, rows)


def _text(flat: Mapping[str, Any], key: str) -> str:
    return plain(flat.get(key))[:LONGEST]


def _files(evidence: Evidence, row: Row) -> Table:
    """Where the record, log and adapter of each run lie, below the folder of runs."""
    columns = (
        Column("seed"),
        Column("ended", number=False),
        Column("run folder", number=False),
        Column("in it", number=False),
    )
    rows = tuple(
        (
            Cell(str(run.record.plan.seed), run.record.plan.seed),
            Cell(run.record.status),
            Cell("/".join(run.folder.path.parts[-3:]), style="code"),
            _kept(run),
        )
        for run in row.runs
    )
    return Table(f"files-{anchor(evidence, row)}", columns, rows)


def _kept(run: StoredRun) -> Cell:
    """The files of a run that are there."""
    folder = run.folder
    named = (
        (folder.record, "record"),
        (folder.log, "log"),
        (folder.attempt.log, "log of an attempt that did not end well"),
        (folder.items, "items"),
        (folder.adapter, "adapter"),
    )
    files = tuple((f"{path.name} ({what})", path) for path, what in named if path.exists())
    return Cell(", ".join(words for words, _ in files), files=files)
