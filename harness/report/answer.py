"""Answer: what the runs have shown, in the few lines that end a command."""

from __future__ import annotations

from collections.abc import Iterator

from harness import numbers
from harness.report.decision import show_speed
from harness.report.evidence import Evidence
from harness.report.gains import gains
from harness.report.machines import same_machine
from harness.report.recommend import Recommendation, recommend
from harness.report.rows import Row
from harness.report.summary import lead


def answer_lines(evidence: Evidence) -> list[str]:
    """What is recommended, at what price and how sure; of a single row, what training changed."""
    found = recommend(evidence)
    if found is None:
        return ["No run has been scored, so there is nothing to recommend."]
    if len(evidence.rows) == 1:
        return _gains(evidence.rows[0])
    if found.row is None:
        return [f"Nothing fits. {' '.join(found.reasons)}", *found.sureness]
    lines = [f"{lead(evidence)}{found.row.label}. {' '.join(found.reasons)}"]
    lines += _gains(found.row)
    lines += _price(evidence, found)
    return [*lines, *found.sureness]


def _gains(row: Row) -> list[str]:
    return [f"{row.label}: {gain}" for gain in gains(row)]


def _price(evidence: Evidence, found: Recommendation) -> Iterator[str]:
    """Peak memory, training time and speed of the recommended row, beside the reference's."""
    row, reference = found.row, evidence.by_label.get(evidence.reference or "")
    if row is None:
        return
    beside = reference
    if reference is row or (reference is not None and not same_machine(row, reference)):
        beside = None
    parts = []
    for name, read, show in (
        ("peak memory", evidence.peak, numbers.size),
        ("training", lambda row: row.training_seconds, numbers.duration),
        ("at", lambda row: row.tokens_per_second, show_speed),
    ):
        own, theirs = read(row), None if beside is None else read(beside)
        if own is not None:
            other = f" ({beside.label}: {show(theirs)})" if beside and theirs else ""
            parts.append(f"{name} {show(own)}{other}")
    if parts:
        yield f"Price: {', '.join(parts)}"
