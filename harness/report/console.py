"""Console: the ranking and comparisons as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from harness import numbers
from harness.report.build import Report
from harness.report.cells import TONES, WORDS
from harness.report.compare import COSTS, Change, ComparedRow, Comparison, Unlike
from harness.report.gate import GateResult, no_interval, sentence, show_change
from harness.report.matching import MOST_NAMED
from harness.report.ranking import ranking

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

    from harness.report.blocks import Table

BORDER = 3  # a line and a space on each side
ALWAYS = 2  # the variant and the score that ranks
WORDY = 20  # characters in which a column of words is still read well
STYLES = {"good": "green", "bad": "red", "muted": "dim", "": ""}


# Columns that stay when a terminal is too narrow for all, the first ones longest.
PRIORITY = (
    "verdict",
    "peak memory",
    "tokens/s",
    "train time",
    "seeds",
    "weights",
    "change by training",
)


def ranking_table(report: Report, width: int | None = None) -> RichTable:
    """The report's ranking table for rich, in at most ``width`` characters.

    Columns that do not fit are left out, least important first, and named below the table.
    """
    from rich.table import Table as RichTable

    table = ranking(report.evidence)
    kept = _fitting(table, width)
    left_out = [c.title for index, c in enumerate(table.columns) if index not in kept]
    caption = table.caption
    if left_out:
        caption += f" In the report only: {', '.join(left_out)}."
    shown = RichTable(
        title=_text(report.title), caption=_text(caption), title_justify="left", padding=(0, 1)
    )
    for index in kept:
        column = table.columns[index]
        justify: Literal["right", "left"] = "right" if column.number else "left"
        narrow = len(column.title) > _natural_width(table, index)
        title = column.title.replace(" ", "\n") if narrow else column.title
        shown.add_column(_text(title), justify=justify, overflow="fold")
    for row in table.rows:
        shown.add_row(*(_text(row[index].text, STYLES[row[index].tone]) for index in kept))
    return shown


def _fitting(table: Table, width: int | None) -> list[int]:
    """Indices of the columns that fit, in their order; the first two always do."""
    if width is None:
        return list(range(len(table.columns)))
    order = sorted(range(len(table.columns)), key=lambda index: _rank(table, index))
    kept: list[int] = []
    room = width - 1
    for index in order:
        needed = _natural_width(table, index) + BORDER
        if needed <= room or index < ALWAYS:
            kept.append(index)
            room -= needed
    return sorted(kept)


def _rank(table: Table, index: int) -> tuple[int, int]:
    title = table.columns[index].title
    if index < ALWAYS:
        return 0, index
    return 1 + (PRIORITY.index(title) if title in PRIORITY else len(PRIORITY)), index


def _natural_width(table: Table, index: int) -> int:
    """Width without breaking a cell; a title, and words such as a verdict's, may wrap."""
    column = table.columns[index]
    texts = [row[index].text for row in table.rows]
    words = [len(word) for text in (column.title, *texts) for word in text.split()]
    longest = max(map(len, texts), default=0)
    return max([*words, longest if column.number or index < ALWAYS else min(longest, WORDY)])


def comparison_table(comparison: Comparison) -> RichTable:
    """The paired table of ``compare``: every quantity of every pair."""
    from rich.table import Table as RichTable

    title = f"{comparison.after.name} (B) against {comparison.before.name} (A)"
    several = len(comparison.pairs) > 1
    caption = f"margin {comparison.margin * 100:.4g} %; intervals are 95 %, p-values by Holm"
    there = {change.name for pair in comparison.pairs for change in pair.changes}
    costs = [cost.name for cost in COSTS if cost.name in there]
    if costs:
        caption += (
            f"; {', '.join(costs)}: geometric means over common seeds (a report's costs are "
            "medians over all seeds of a variant)"
        )
    for reason in dict.fromkeys(one.reason for pair in comparison.pairs for one in pair.unlike):
        caption += f"; costs that are not compared were {reason}"
    if comparison.unmatched:
        caption += f"; without a match: {numbers.some_of(comparison.unmatched, MOST_NAMED)}"
    shown = RichTable(title=_text(title), caption=_text(caption), title_justify="left")
    for name in (["variant"] if several else []) + ["quantity"]:
        shown.add_column(name, overflow="fold")
    for name in ("A", "B", "B against A", "p"):
        shown.add_column(name, justify="right")
    shown.add_column("verdict")
    for pair in comparison.pairs:
        for cells in _pair_rows(pair):
            shown.add_row(*([_text(pair.label)] if several else []), *cells)
    return shown


def _pair_rows(pair: ComparedRow) -> list[list[RichText]]:
    if pair.failed is not None:
        return [[_text(pair.failed, "red"), *[_text("–")] * 4, _text("cannot compare", "red")]]
    rows = [_change_row(change) for change in pair.changes]
    rows += [_unlike_row(one) for one in pair.unlike]
    for name, reason in pair.missing.items():
        rows.append([_text(name), *[_text("–", "dim")] * 4, _text(reason, "dim")])
    return rows


def _unlike_row(one: Unlike) -> list[RichText]:
    """Both values beside each other, without a comparison."""
    values = [_text(_quantity(one, value)) for value in (one.before, one.after)]
    none, word = _text("–", "dim"), _text("not compared", "dim")
    return [_text(one.name), *values, none, none, word]


def _change_row(change: Change) -> list[RichText]:
    text = show_change(change, change.estimate)
    if change.low is not None and change.high is not None:
        text += f" [{show_change(change, change.low)}, {show_change(change, change.high)}]"
    p = "–" if change.adjusted_p is None else numbers.p_value(change.adjusted_p)
    word = WORDS.get(change.verdict, change.verdict) if change.verdict else ""
    without = "" if change.low is not None else f"no interval: {no_interval(change)}"
    verdict = without if change.obstacle and change.verdict != "differs" else word or without
    style = STYLES[TONES[change.verdict]] if change.verdict else "dim"
    values = [_quantity(change, value) for value in (change.before, change.after)]
    return [_text(change.name), *map(_text, values), _text(text), _text(p), _text(verdict, style)]


def _quantity(change: Change | Unlike, value: float) -> str:
    if change.unit.startswith("bytes,") or change.unit == "bytes":
        return numbers.size(value)
    if change.unit.startswith("seconds"):
        return numbers.duration(value)
    if change.unit == "joules":
        return numbers.energy(value)
    return numbers.number(value)


def outcome_lines(outcomes: Sequence[GateResult]) -> list[RichText]:
    """One line per gate and pair."""
    styles = {"passed": "green", "failed": "red", "unknown": "yellow"}
    return [_text(sentence(outcome), styles[outcome.status]) for outcome in outcomes]


def _text(text: str, style: str = "") -> RichText:
    from rich.text import Text

    return Text(text, style=style)
