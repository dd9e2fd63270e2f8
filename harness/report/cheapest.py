"""Cheapest: which of some rows costs least, and what told, where costs repeat within a spread."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness import numbers
from harness.report.evidence import Evidence
from harness.report.machines import named_apart, same_machine
from harness.report.rows import Row
from harness.report.ties import CostOrder, counts_steps, memory_order, time_order

NAMED = 4


def least_memory(evidence: Evidence, rows: list[Row]) -> tuple[Row, str]:
    """The row that needs least memory, and what to say of rows that measure the same."""
    here = _here(rows)
    order = memory_order(evidence.beside(rows[0]), evidence.measures[rows[0].label])
    chosen = order.least(here)
    tied = [row.label for row in here if row is not chosen and order.tied(row, chosen)]
    told = _tie(order, chosen, tied), _elsewhere(evidence, chosen, rows)
    return chosen, " ".join(filter(None, told))


def _here(rows: list[Row]) -> list[Row]:
    """Of rows, best first, those on the device of the first: costs of others do not compare."""
    return [row for row in rows if same_machine(row, rows[0])]


def _elsewhere(evidence: Evidence, chosen: Row, rows: list[Row]) -> str:
    """Which rows were not weighed by what they cost, since they ran on another device."""
    away = [row.label for row in rows if not same_machine(row, chosen)]
    if not away:
        return ""
    return (
        f"Costs are weighed on {named_apart(chosen, evidence.rows)} alone; elsewhere ran "
        f"{numbers.some_of(away, NAMED)}."
    )


def _tie(order: CostOrder, chosen: Row, tied: list[str]) -> str:
    if not tied:
        return ""
    text = (
        f"Its peak memory and that of {numbers.some_of(tied, NAMED)} count as a tie: repeated "
        f"runs of one variant differ by up to {numbers.percent(order.alike, digits=0)}."
    )
    if order.breakers and chosen.predicted_bytes is not None:
        text += " The predicted memory, which does not vary between runs, decides."
    return text


def cheapest(evidence: Evidence, rows: list[Row]) -> tuple[Row, str]:
    """The row that needs least memory; of those that tie, the fastest; and which of it told.

    What is measured comes before the planner's memory, which tells only where neither does.
    Only rows on the device of the first are weighed.
    """
    here = _here(rows)
    chosen, why = _cheapest(evidence, here)
    apart = "" if len(here) == len(rows) else f", of those on {named_apart(chosen, evidence.rows)}"
    return chosen, f"{why}{apart}"


def _cheapest(evidence: Evidence, rows: list[Row]) -> tuple[Row, str]:
    beside, kind = evidence.beside(rows[0]), evidence.measures[rows[0].label]
    memory, time = memory_order(beside, kind), time_order(beside)
    leanest = min(rows, key=lambda row: _or_infinite(memory.read(row)))
    lean = [row for row in rows if row is leanest or memory.tied(row, leanest)]
    if len(lean) == 1 and memory.read(leanest) is not None:
        return leanest, f"it needs the least memory, {evidence.needed(leanest)}"
    lean = lean if memory.read(leanest) is not None else rows
    fastest = min(lean, key=lambda row: _or_infinite(time.read(row)))
    fast = [row for row in lean if row is fastest or time.tied(row, fastest)]
    if len(fast) == 1 and time.read(fastest) is not None:
        took = numbers.duration(time.read(fastest))
        return fastest, _fastest(beside, took, memory.read(leanest))
    fast = fast if time.read(fastest) is not None else lean
    chosen, tied = memory.least(fast), _tied(memory.read(leanest), time.read(fastest))
    if any(memory.less(chosen, row) for row in fast if row is not chosen):
        return chosen, f"it needs the least memory as predicted; {tied}"
    return chosen, f"none is cheaper: {tied}"


def _fastest(rows: Sequence[Row], took: str, memory: float | None) -> str:
    what = "its steps take" if counts_steps(rows) else "its training takes"
    rest = "are not known" if memory is None else "count as a tie"
    return f"{what} the least time, {took}; their peak memories {rest}"


def _tied(memory: float | None, time: float | None) -> str:
    """Why neither what was measured of memory nor of time told."""
    if memory is None:
        return (
            "neither memory nor time is known"
            if time is None
            else "time counts as a tie, and memory is not known"
        )
    if time is None:
        return "measured memory counts as a tie, and time is not known"
    return "measured memory and time count as ties"


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value
