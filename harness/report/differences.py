"""Differences: every variant against the reference, with intervals, p-values and verdicts."""

from __future__ import annotations

import math

from harness.report import numbers
from harness.report.blocks import Block, Cell, Column, Figure, Section, Table, prose, unknown
from harness.report.drawings import Axis, Forest, ForestRow
from harness.report.evidence import Evidence
from harness.report.ranking import TONES, difference_cell, show_difference
from harness.report.scoring import Difference, Scoring


def differences_section(evidence: Evidence) -> Section | None:
    """A forest plot and a table per score."""
    compared = [scoring for scoring in evidence.scorings if scoring.differences]
    if not compared:
        return None
    blocks: list[Block] = [
        prose(
            f"Differences from {evidence.reference} on the same items. Intervals are 95 %, over "
            "items (clustered by conversation tree) and, where there are several, seeds. p-values "
            "are corrected by Holm's method within each score. Equivalent: the whole interval "
            "lies within the margin."
        )
    ]
    for scoring in compared:
        blocks += [_forest(evidence, scoring), _table(scoring)]
    return Section("differences", f"Differences from {evidence.reference}", tuple(blocks))


def _forest(evidence: Evidence, scoring: Scoring) -> Figure:
    ordered = [label for label in scoring.ordered() if label in scoring.differences]
    rows = tuple(
        ForestRow(
            label=label,
            mark=evidence.by_label[label].mark,
            estimate=found.estimate,
            low=found.low,
            high=found.high,
            verdict=found.verdict,
        )
        for label in ordered
        if (found := scoring.differences[label])
    )
    kind = "relative change" if scoring.scale.relative else f"change in {scoring.scale.unit}"
    axis = Axis(
        f"{scoring.key.title}: {kind} from {evidence.reference}",
        "lower" if scoring.scale.direction == "lower" else "higher",
        percent=scoring.scale.relative,
    )
    name = f"differences-{scoring.key.stem}"
    alt = f"{scoring.key.title} against {evidence.reference}: " + "; ".join(
        f"{row.label} {show_difference(scoring, row.estimate)} ({row.verdict})" for row in rows[:12]
    )
    caption = f"{scoring.key.title} against {evidence.reference}; the shaded band is the margin"
    return Figure(name, caption, alt, Forest(axis, rows, scoring.scale.margin))


def _table(scoring: Scoring) -> Table:
    columns = (
        Column("variant", number=False),
        Column("difference [95 % interval]"),
        Column("p"),
        Column("p (Holm)"),
        Column("verdict", number=False),
        Column("seeds"),
        Column("would decide it", number=False),
    )
    rows = tuple(
        _cells(scoring, found)
        for label in scoring.ordered()
        if (found := scoring.differences.get(label)) is not None
    )
    margin = show_difference(scoring, scoring.scale.margin).lstrip("+")
    caption = (
        f"{scoring.key.title}, {scoring.items} items in {scoring.clusters} conversation trees, "
        f"margin {margin}."
    )
    name = f"differences-{scoring.key.stem}"
    return Table(name, columns, rows, caption)


def _cells(scoring: Scoring, found: Difference) -> tuple[Cell, ...]:
    return (
        Cell(found.label, found.label, style="code"),
        difference_cell(scoring, found),
        Cell(numbers.p_value(found.p_value), found.p_value),
        Cell(numbers.p_value(found.adjusted_p), found.adjusted_p),
        Cell(found.verdict, found.verdict, TONES[found.verdict]),  # type: ignore[arg-type]
        Cell(str(found.worse_by.seeds), found.worse_by.seeds),
        would_decide(scoring, found),
    )


def would_decide(scoring: Scoring, found: Difference) -> Cell:
    """How many seeds or items would decide an undecided comparison."""
    if found.needed is None:
        return unknown()
    ways = []
    if found.needed.seeds is not None:
        ways.append(f"{found.needed.seeds} seeds")
    if found.needed.more_items is not None:
        items = math.ceil(found.needed.more_items * scoring.items)
        trees = math.ceil(found.needed.more_items * scoring.clusters)
        ways.append(f"{items:,} items ({trees:,} trees)")
    if not ways:
        return Cell("more seeds and more items", None, "muted")
    return Cell("about " + " or ".join(ways), None)
