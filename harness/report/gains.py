"""Gains: what training changed in each headline score of a row."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean, geometric_mean

from harness import numbers
from harness.report.pairing import ScoreKey
from harness.report.rows import Row
from harness.report.sample import make_scale, round6


def gains(row: Row) -> Iterator[str]:
    """Each headline score of a row before and after training, the mean over its seeds."""
    for key in _headlines(row):
        value = _as_ranked(mean_score(row, key))
        before = mean_score(row, ScoreKey(key.task, key.metric, key.precision, "before"))
        if value is None:
            continue
        if not row.plan.trains:
            yield f"{key.title} {numbers.number(value)} (not trained)"
        elif before is not None:
            yield f"{key.title} {numbers.number(_as_ranked(before))} → {_moved(before, value)}"
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


def mean_score(row: Row, key: ScoreKey) -> float | None:
    """The mean over seeds as the ranking takes it: of logarithms where ratios are compared."""
    scores = [found for record in row.finished if (found := key.find(record)) is not None]
    if not scores:
        return None
    values = [score.value for score in scores]
    relative = make_scale(scores, margin=0.0).relative and min(values) > 0
    return geometric_mean(values) if relative else fmean(values)


def _as_ranked(value: float | None) -> float | None:
    """Rounded as the ranking rounds it first, so that both show the same last digit."""
    return None if value is None else round6(value)


def _moved(before: float, after: float) -> str:
    if before <= 0:
        return numbers.number(after)
    change = numbers.percent(after / before - 1, signed=True)
    return f"{numbers.number(after)}, {change}"
