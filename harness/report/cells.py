"""Cells: how scores, differences, verdicts, costs and failures are written in tables and text."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from harness import numbers
from harness.records.record import RunRecord
from harness.report.blocks import Cell, Tone, unknown
from harness.report.judging import Difference
from harness.report.scoring import RowScore, Scoring
from harness.report.statistics.effects import FEWEST_CLUSTERS

TONES: dict[str, Tone] = {
    "better": "good",
    "worse": "bad",
    "equivalent": "good",
    "undecided": "muted",
    "differs": "muted",
}
WORDS: dict[str, str] = {"differs": "differs on these items (one training each)"}
REASONS: dict[str, str] = {
    "one training": "one training each: nothing can be said about the variant",
    "few items": f"fewer than {FEWEST_CLUSTERS} groups of items",
    "no noise": "every item differs by the same amount",
    "identical": "identical on every item",
}


def memory_cell(peaks: Sequence[int]) -> Cell:
    """Median peak memory with the lowest and highest of several runs."""
    return spread_cell(peaks, numbers.size)


def spread_cell(values: Sequence[float], show: Callable[[float], str]) -> Cell:
    """The median of sorted costs, with the lowest and highest where there are several."""
    if not values:
        return unknown()
    middle = statistics.median(values)
    text = show(middle)
    if len(values) > 1:
        low, high = show(values[0]), show(values[-1])
        text += f" ({low.partition(' ')[0] if _same_unit(low, high) else low}–{high})"
    return Cell(text, middle)


def _same_unit(*sizes: str) -> bool:
    units = {size.partition(" ")[2] for size in sizes}
    return len(units) == 1 and " " not in units.pop()


def score_cell(scoring: Scoring, label: str) -> Cell:
    """A row's value with its interval, where the items can estimate one."""
    found = scoring.values.get(label)
    if found is None:
        return unknown()
    return Cell(_with_interval(found), found.value)


def _with_interval(score: RowScore) -> str:
    text = numbers.number(score.value)
    if score.low is None or score.high is None:
        return text
    return f"{text} [{_end(score, score.low)}, {_end(score, score.high)}]"


def _end(score: RowScore, value: float) -> str:
    """An end of an interval, as finely as the interval is wide."""
    assert score.low is not None and score.high is not None  # noqa: S101, PT018 - the caller looked
    return numbers.to_width(value, score.high - score.low)


def show_difference(scoring: Scoring, value: float, *, digits: int = 2) -> str:
    """A difference in the score's own terms: relative change, points of a share, or units."""
    if scoring.scale.relative:
        return numbers.percent(value, signed=True, digits=digits)
    if scoring.scale.share:
        return numbers.number(value * 100, signed=True, digits=3) + " points"
    return numbers.number(value, signed=True, digits=3)


def show_limit(scoring: Scoring, value: float) -> str:
    """A margin or limit as the user would write it."""
    if scoring.scale.relative:
        return f"{value * 100:.4g} %"
    if scoring.scale.share:
        return f"{value * 100:.4g} point" + ("" if value == 0.01 else "s")
    return f"{value:.4g}"


def difference_text(scoring: Scoring, difference: Difference) -> str:
    """A difference and, where the data allow one, its interval."""
    text = show_difference(scoring, difference.estimate)
    if difference.low is None or difference.high is None:
        return text
    low, high = (show_difference(scoring, end) for end in (difference.low, difference.high))
    return f"{text} [{low}, {high}]"


def difference_cell(scoring: Scoring, difference: Difference | None) -> Cell:
    """Difference from the reference and its interval."""
    if difference is None:
        return unknown()
    return Cell(difference_text(scoring, difference), difference.estimate)


def judged_cell(difference: Difference) -> Cell:
    """The verdict of a comparison, or why there is none."""
    word = WORDS.get(difference.verdict, difference.verdict)
    if difference.verdict == "undecided" and difference.obstacle:
        word = f"undecided ({REASONS[difference.obstacle]})"
    if difference.obstacle == "identical" and difference.verdict == "equivalent":
        word = REASONS["identical"]
    return Cell(word, difference.verdict, TONES[difference.verdict])


def ending(record: RunRecord) -> str:
    """How a run that did not end well ended, with the phase it happened in."""
    names = {"oom": "out of memory"}
    status = names.get(record.status, record.status)
    phase = record.problem.phase if record.problem else None
    return f"{status} in {phase}" if phase else status
