"""Frontier: what quality is set against, and which rows no other one beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness import numbers
from harness.report.axes import STEP_TIME
from harness.report.evidence import Evidence
from harness.report.rows import MEMORY_KINDS, Row
from harness.report.scoring import Scoring
from harness.report.ties import CostOrder, counts_steps, energy_order, memory_order, time_order


@dataclass(frozen=True)
class Cost:
    """What quality is set against: its title, the unit that is drawn, and the order of rows."""

    name: str
    title: str
    unit: str
    scale: float
    order: CostOrder

    def say(self, value: float | None) -> str:
        """A drawn value with its unit."""
        return f"{numbers.number(value, digits=3)} {self.unit}"


def costs_of(evidence: Evidence) -> tuple[Cost, ...]:
    """Peak memory, time and energy of the rows whose costs compare, in the units that suit them."""
    rows = [row for row in evidence.rows if row.label in evidence.costed]
    by_time = time_order(rows)
    times = [by_time.read(row) or 0 for row in rows]
    unit, short, seconds = ("minutes", "min", 60) if max(times) > 180 else ("seconds", "s", 1)
    kind = evidence.memory_kind
    timed = STEP_TIME if counts_steps(rows) else "training time"
    memory = memory_order(rows, kind)
    return (
        Cost("memory", f"peak memory, GiB ({MEMORY_KINDS[kind]})", "GiB", 2**30, memory),
        Cost("time", f"{timed}, {unit}", short, seconds, by_time),
        Cost("energy", "training energy, Wh", "Wh", 3600, energy_order(rows)),
    )


def costed_rows(evidence: Evidence, main: Scoring, cost: Cost) -> list[tuple[Row, float]]:
    """Rows whose costs compare, best first, each with its cost as drawn; none where all cost alike.

    Those that have the score and the cost.
    """
    known = [
        (row, x / cost.scale)
        for row in evidence.ranked
        if row.label in main.values and row.label in evidence.costed
        if (x := cost.order.read(row)) is not None
    ]
    return known if len({x for _, x in known}) > 1 else []


def on_front(main: Scoring, known: Sequence[tuple[Row, float]]) -> set[str]:
    """Labels of the rows that no other one beats in quality and cost, by the values drawn."""
    points = [(main.values[row.label].value * main.scale.sign, x) for row, x in known]
    beaten = [
        any(other[0] <= lost and other[1] <= cost and other != (lost, cost) for other in points)
        for lost, cost in points
    ]
    return {row.label for (row, _), worse in zip(known, beaten, strict=True) if not worse}
