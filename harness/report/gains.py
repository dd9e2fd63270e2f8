"""Gains: what training changed in each headline score of a row."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from harness.records.record import Score
from harness.report import numbers
from harness.report.rows import Row


def gains(row: Row) -> Iterator[str]:
    """Each headline score of a row before and after training, the mean over its seeds."""
    for key, after in _headlines(row).items():
        value = fmean(score.value for score in after)
        name = _name(after[0])
        before = [
            score.value
            for record in row.finished
            for score in record.scores
            if score.stage == "before" and (score.task, score.metric, score.precision) == key
        ]
        if not row.plan.trains:
            yield f"{name} {numbers.number(value)} (not trained)"
        elif before:
            yield f"{name} {numbers.number(fmean(before))} → {_moved(fmean(before), value)}"
        else:
            yield f"{name} {numbers.number(value)} after training"


def _headlines(row: Row) -> dict[tuple[str, str, str], list[Score]]:
    found: dict[tuple[str, str, str], list[Score]] = {}
    for record in row.finished:
        for score in record.scores:
            if score.stage == "after" and score.headline:
                found.setdefault((score.task, score.metric, score.precision), []).append(score)
    return found


def _name(score: Score) -> str:
    return score.metric if score.metric == "perplexity" else f"{score.task} {score.metric}"


def _moved(before: float, after: float) -> str:
    if before <= 0:
        return numbers.number(after)
    change = numbers.percent(after / before - 1, signed=True, digits=0)
    return f"{numbers.number(after)}, {change}"
