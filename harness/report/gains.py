"""Gains: what training changed in each headline score of a row."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from harness import numbers
from harness.report.pairing import ScoreKey
from harness.report.rows import Row


def gains(row: Row) -> Iterator[str]:
    """Each headline score of a row before and after training, the mean over its seeds."""
    for key in _headlines(row):
        after = _values(row, key)
        before = _values(row, ScoreKey(key.task, key.metric, key.precision, "before"))
        value = fmean(after)
        if not row.plan.trains:
            yield f"{key.title} {numbers.number(value)} (not trained)"
        elif before:
            yield f"{key.title} {numbers.number(fmean(before))} → {_moved(fmean(before), value)}"
        else:
            yield f"{key.title} {numbers.number(value)} after training"


def _headlines(row: Row) -> list[ScoreKey]:
    """In the order in which the records have them."""
    scores = [score for record in row.finished for score in record.scores]
    keys = (
        ScoreKey(score.task, score.metric, score.precision)
        for score in scores
        if score.stage == "after" and score.headline
    )
    return list(dict.fromkeys(keys))


def _values(row: Row, key: ScoreKey) -> list[float]:
    found = (key.find(record) for record in row.finished)
    return [score.value for score in found if score is not None]


def _moved(before: float, after: float) -> str:
    if before <= 0:
        return numbers.number(after)
    change = numbers.percent(after / before - 1, signed=True, digits=0)
    return f"{numbers.number(after)}, {change}"
