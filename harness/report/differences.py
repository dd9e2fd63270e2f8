"""Differences: every variant against the reference, with intervals, p-values and verdicts."""

from __future__ import annotations

import math

from harness import numbers
from harness.report.blocks import (
    Block,
    Cell,
    Column,
    Details,
    Figure,
    Section,
    Table,
    folded,
    prose,
    unknown,
    without_empty_columns,
)
from harness.report.cells import (
    WORDS,
    difference_cell,
    difference_text,
    judged_cell,
    show_difference,
    show_limit,
)
from harness.report.evidence import Evidence
from harness.report.figures.canvas import Axis
from harness.report.figures.intervals import Interval, Intervals
from harness.report.judging import Difference
from harness.report.repeatability import describe_check
from harness.report.scoring import Scoring
from harness.report.statistics.effects import FEWEST_CLUSTERS

DRAWN = 40


def differences_section(evidence: Evidence) -> Section | None:
    """The primary score in full; the secondary ones folded away and called exploratory."""
    compared = [scoring for scoring in evidence.scorings if scoring.differences]
    if not compared:
        return None
    told = [scoring for scoring in compared if scoring.clusters >= FEWEST_CLUSTERS]
    blocks: list[Block] = [prose(_introduction(evidence))]
    for scoring in told:
        table = folded(_table(evidence, scoring), f"Differences in {scoring.key.title} as numbers")
        shown: list[Block] = [_figure(evidence, scoring), table]
        primary = scoring is evidence.main
        title = f"Secondary (exploratory): {scoring.key.title}"
        blocks += shown if primary else [Details(title, tuple(shown))]
    untold = [scoring.key.title for scoring in compared if scoring not in told]
    if untold:
        blocks.append(
            prose(
                f"Not compared, because fewer than {FEWEST_CLUSTERS} groups of items were scored: "
                f"{', '.join(untold)}."
            )
        )
    return Section("differences", f"Differences from {evidence.reference}", tuple(blocks))


def _introduction(evidence: Evidence) -> str:
    assert evidence.main is not None  # noqa: S101 - there are differences
    text = (
        f"Differences from {evidence.reference} on the same items and, between trained "
        "variants, the same seeds. An interval accounts for the choice of items and of "
        "seeds; items of one group, such as a conversation tree, count as one. "
        f"{evidence.main.key.title} is the primary score: its p-values are corrected for the "
        "number of variants (Holm), so an interval that just excludes zero may still be "
        "undecided. "
    )
    if len(evidence.scorings) > 1:
        text += (
            "All other scores are secondary and exploratory: their p-values and those of the "
            "quantization accounting are corrected together (Benjamini and Hochberg). "
        )
    text += (
        "Equivalent means that the whole interval lies within the margin; that too is corrected "
        "for the number of comparisons, so an interval that just fits may still be undecided."
    )
    if any(
        found.verdict == "differs" or found.obstacle == "one training" for found in _all(evidence)
    ):
        text += (
            " With one training of a variant there is no interval and no verdict about the "
            "variant: another seed may give another difference."
        )
    return text


def _all(evidence: Evidence) -> list[Difference]:
    return [found for scoring in evidence.scorings for found in scoring.differences.values()]


def _figure(evidence: Evidence, scoring: Scoring) -> Figure:
    ordered = [label for label in scoring.ordered() if label in scoring.differences]
    # Shares are drawn in percentage points.
    unit = 100 if scoring.scale.share else 1
    rows = tuple(
        Interval(
            label=label,
            mark=evidence.by_label[label].mark,
            estimate=unit * found.estimate,
            low=None if found.low is None else unit * found.low,
            high=None if found.high is None else unit * found.high,
            verdict="one training" if found.obstacle == "one training" else found.verdict,
            said=f"{label}: {difference_text(scoring, found)}, {found.verdict}",
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
        f"{row.label} {show_difference(scoring, row.estimate / unit)} "
        f"({WORDS.get(row.verdict, row.verdict)})"
        for row in rows[:12]
    )
    caption = f"{scoring.key.title} against {evidence.reference}; the shaded band is the margin"
    return Figure(name, caption, alt, Intervals(axis, rows, unit * scoring.scale.margin))


def _table(evidence: Evidence, scoring: Scoring) -> Table:
    primary = scoring is evidence.main
    columns = [
        Column("variant", number=False),
        Column("difference [95 % interval]"),
        Column("p"),
        Column("p (Holm)" if primary else "p (BH)"),
        Column("verdict", number=False),
        Column("seeds", help="trainings of the variant that were compared"),
    ]
    if primary:
        columns += [
            Column("smallest detectable difference", help="by these items and seeds, 80 % power"),
            Column("needed for equivalence", number=False),
        ]
    rows = tuple(
        _cells(evidence, scoring, found)
        for label in scoring.ordered()
        if (found := scoring.differences.get(label)) is not None
    )
    caption = (
        f"{scoring.key.title}, {counted_items(scoring)}, margin "
        f"{show_limit(scoring, scoring.scale.margin)}."
    )
    if primary:
        caption += (
            " Smallest detectable difference: a true difference of this size would be found in "
            "about 80 of 100 repetitions, after the correction. Needed for equivalence: how many "
            "seeds or items would show, equally often, that two variants without a difference "
            "are equivalent."
        )
    made = Table(f"differences-{scoring.key.stem}", tuple(columns), rows, caption)
    return without_empty_columns(made)


def counted_items(scoring: Scoring) -> str:
    """How many items, and how many groups they form where some belong together."""
    items = f"{scoring.items:,} items"
    return items if scoring.items == scoring.clusters else f"{items} in {scoring.clusters:,} groups"


def _cells(evidence: Evidence, scoring: Scoring, found: Difference) -> tuple[Cell, ...]:
    trains = evidence.by_label[found.label].plan.trains
    seeds = found.worse_by.seeds
    cells = (
        Cell(found.label, found.label, style="code"),
        difference_cell(scoring, found),
        _p_cell(found.p_value),
        _p_cell(None if found.obstacle else found.adjusted_p),
        judged_cell(found),
        Cell(str(seeds), seeds) if trains else Cell("not trained", 0, "muted"),
    )
    if scoring is not evidence.main:
        return cells
    return (*cells, _smallest(scoring, found), to_settle(evidence, scoring, found))


def _p_cell(value: float | None) -> Cell:
    return unknown() if value is None else Cell(numbers.p_value(value), value)


def _smallest(scoring: Scoring, found: Difference) -> Cell:
    if found.smallest is None:
        return unknown()
    shown = found.smallest * 100 if scoring.scale.share else found.smallest
    if scoring.scale.relative:
        return Cell(numbers.percent(found.smallest), found.smallest)
    unit = " points" if scoring.scale.share else ""
    return Cell(numbers.number(shown, digits=2) + unit, found.smallest)


def to_settle(evidence: Evidence, scoring: Scoring, found: Difference) -> Cell:
    """How many seeds or items would show variants without a difference to be equivalent."""
    if found.needed is None:
        return unknown()
    ways = []
    if found.needed.seeds is not None:
        ways.append(f"{found.needed.seeds} seeds")
    if found.needed.more_items is not None:
        items = math.ceil(found.needed.more_items * scoring.items)
        whole = _documents(evidence, scoring)
        if whole is not None and items > whole:
            ways.append(f"{items:,} items (the task has {whole:,})")
        else:
            ways.append(f"{items:,} items")
    if not ways:
        return Cell("more seeds and more items", None, "muted")
    return Cell("about " + " or ".join(ways), None)


def _documents(evidence: Evidence, scoring: Scoring) -> int | None:
    """How many items the task has in all, where its score says so."""
    records = (record for row in evidence.rows for record in row.finished)
    score = next((found for record in records if (found := scoring.key.find(record))), None)
    whole = None if score is None else score.details.get("documents")
    return whole if isinstance(whole, int) else None


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
        "The spread between seeds says how much the score changes when training is repeated; "
        "the error from items says how much it would change with another held-out set of "
        f"this size. The paired columns are for the difference from {evidence.reference}, in "
        "which noise that both variants share cancels. With three seeds or more, paired "
        "spreads are drawn towards their common one (Smyth's moderation), except one that is "
        "clearly larger."
        if several
        else "One seed only: how much repeating the training would change is unknown."
    )
    table = without_empty_columns(
        Table("noise", columns, rows, "s.d.: standard deviation, s.e.: standard error.")
    )
    check = prose(describe_check(evidence.main_sample))
    return Section(
        "noise",
        "Noise from seeds and from items",
        (prose(text), folded(table, "Noise by variant"), check),
    )


def _noise_cells(evidence: Evidence, main: Scoring, label: str) -> tuple[Cell, ...]:
    score = main.values[label]
    found = main.differences.get(label)
    trains = evidence.by_label[label].plan.trains
    pair: tuple[float | None, float | None] = (None, None)
    if found is not None and not found.obstacle:
        noise = found.worse_by.noise
        pair = (_root(noise.seeds), _root(noise.items))
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
