"""Differences: every variant against the reference, with intervals, p-values and verdicts."""

from __future__ import annotations

import math

from harness.report import numbers
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
from harness.report.drawings import Axis, Forest, ForestRow
from harness.report.evidence import Evidence
from harness.report.ranking import TONES, difference_cell, show_difference, show_limit
from harness.report.scoring import Difference, Scoring

DRAWN = 40


def differences_section(evidence: Evidence) -> Section | None:
    """A forest plot and a table per score."""
    compared = [scoring for scoring in evidence.scorings if scoring.differences]
    if not compared:
        return None
    blocks: list[Block] = [
        prose(
            f"Differences from {evidence.reference} on the same items. Intervals are 95 %, over "
            "items (clustered by conversation tree) and, where there are several, seeds. p-values "
            "are corrected by Holm's method for the number of comparisons within each score, so "
            "that an interval beside zero may still be undecided. Equivalent: the whole interval "
            "lies within the margin."
        )
    ]
    for scoring in compared:
        shown: list[Block] = [_forest(evidence, scoring), _table(scoring)]
        blocks += shown if scoring.headline else [Details(scoring.key.title, tuple(shown))]
    return Section("differences", f"Differences from {evidence.reference}", tuple(blocks))


def _forest(evidence: Evidence, scoring: Scoring) -> Figure:
    ordered = [label for label in scoring.ordered() if label in scoring.differences]
    # Shares are drawn in percentage points.
    unit = 100 if scoring.scale.share else 1
    rows = tuple(
        ForestRow(
            label=label,
            mark=evidence.by_label[label].mark,
            estimate=unit * found.estimate,
            low=unit * found.low,
            high=unit * found.high,
            verdict=found.verdict,
        )
        for label in ordered[:DRAWN]
        if (found := scoring.differences[label])
    )
    kind = "percentage points" if scoring.scale.share else f"change in {scoring.scale.unit}"
    kind = "relative change" if scoring.scale.relative else kind
    axis = Axis(
        f"{scoring.key.title}: {kind} from {evidence.reference}",
        "lower" if scoring.scale.direction == "lower" else "higher",
        percent=scoring.scale.relative,
    )
    name = f"differences-{scoring.key.stem}"
    alt = f"{scoring.key.title} against {evidence.reference}: " + "; ".join(
        f"{row.label} {show_difference(scoring, row.estimate / unit)} ({row.verdict})"
        for row in rows[:12]
    )
    caption = f"{scoring.key.title} against {evidence.reference}; the shaded band is the margin"
    return Figure(name, caption, alt, Forest(axis, rows, unit * scoring.scale.margin))


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
    margin = show_limit(scoring, scoring.scale.margin)
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
        Cell(found.verdict, found.verdict, TONES[found.verdict]),
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


def noise_section(evidence: Evidence) -> Section | None:
    """How much of the uncertainty comes from seeds and how much from items."""
    main = evidence.main
    if main is None or not any(score.item_error is not None for score in main.values.values()):
        return None
    several = any(score.seed_sd is not None for score in main.values.values())
    columns = (
        Column("variant", number=False),
        Column(main.key.title),
        Column("seeds"),
        Column("spread between seeds (s.d.)"),
        Column("error from items (s.e.)"),
        Column("total s.e."),
        Column("paired: from seeds (s.e.)"),
        Column("paired: from items (s.e.)"),
    )
    rows = tuple(_noise_cells(evidence, main, label) for label in main.ordered())
    text = (
        "The spread between seeds is what repeating the training changes; the error from items is "
        "what another held-out set of this size would change. Paired columns are for the "
        f"difference from {evidence.reference}, where what the variants share cancels."
        if several
        else "One seed only: how much repeating the training would change is unknown."
    )
    table = Table("noise", columns, rows, "s.d.: standard deviation, s.e.: standard error.")
    return Section("noise", "Noise from seeds and from items", (prose(text), table))


def _noise_cells(evidence: Evidence, main: Scoring, label: str) -> tuple[Cell, ...]:
    score = main.values[label]
    found = main.differences.get(label)
    trains = evidence.by_label[label].plan.trains
    pair: tuple[float | None, float | None] = (None, None)
    if found is not None:
        worse = found.worse_by
        pair = (_root(worse.seed_variance), _root(worse.item_variance))
    return (
        Cell(label, label, style="code"),
        Cell(numbers.number(score.value), score.value),
        Cell(str(score.seeds) if trains else "not trained", score.seeds),
        _number(score.seed_sd),
        _number(score.item_error),
        _number(score.standard_error),
        *(_paired_error(main, value) for value in pair),
    )


def _root(variance: float | None) -> float | None:
    return None if variance is None else math.sqrt(variance)


def _number(value: float | None) -> Cell:
    return unknown() if value is None else Cell(numbers.number(value, digits=2), value)


def _paired_error(main: Scoring, value: float | None) -> Cell:
    if value is None:
        return unknown()
    text = numbers.percent(value) if main.scale.relative else numbers.number(value, digits=2)
    return Cell(text, value)
