"""Answer: what the runs have shown, in the few lines that end a command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import fmean

from harness.records.record import Score
from harness.report import numbers
from harness.report.evidence import Evidence
from harness.report.recommend import Recommendation, recommend
from harness.report.rows import Row
from harness.report.summary import meaningless


def answer_lines(evidence: Evidence) -> list[str]:
    """What is recommended, at what price and how sure; of a single row, what training changed."""
    found = recommend(evidence)
    if found is None:
        return ["No run has been scored, so there is nothing to recommend."]
    if len(evidence.rows) == 1:
        return list(changes(evidence.rows[0]))
    if found.row is None:
        return [f"Nothing fits. {' '.join(found.reasons)}", *found.sureness]
    lead = "Least bad choice" if meaningless(evidence) else "Recommended"
    lines = [f"{lead}: {found.row.label}. {' '.join(found.reasons)}"]
    lines += changes(found.row)
    lines += _price(evidence, found)
    return [*lines, *found.sureness]


def changes(row: Row) -> Iterator[str]:
    """Each headline score of a row before and after training, the mean over its seeds."""
    for key, after in _headlines(row).items():
        value = fmean(score.value for score in after)
        name = f"{row.label}: {_name(after[0])}"
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


def _price(evidence: Evidence, found: Recommendation) -> Iterator[str]:
    """Peak memory and training time of the recommended row, beside those of the reference."""
    row, reference = found.row, evidence.by_label.get(evidence.reference or "")
    if row is None:
        return
    beside = None if reference is row else reference
    parts = []
    for name, read, show in (
        ("peak memory", _peak(evidence), numbers.size),
        ("training", _training, numbers.duration),
    ):
        own, theirs = read(row), None if beside is None else read(beside)
        if own is not None:
            other = f" ({beside.label}: {show(theirs)})" if beside and theirs else ""
            parts.append(f"{name} {show(own)}{other}")
    if parts:
        yield f"Price: {', '.join(parts)}"


def _peak(evidence: Evidence) -> Callable[[Row], float | None]:
    return lambda row: row.peak_bytes(evidence.memory_kind)


def _training(row: Row) -> float | None:
    return row.phase_seconds("train") if row.plan.trains else None
