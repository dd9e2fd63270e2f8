"""Ties: which rows cost less, where repeated runs do not tell, and what breaks a tie."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.report.rows import Row

ALWAYS_ALIKE = 0.01
CPU_UNKNOWN = 0.25  # of memory without repeats: identical plans peaked at 1.22 and 1.52 GiB
TIME_UNKNOWN = 0.1  # of time and energy without repeats

Read = Callable[[Row], float | None]


@dataclass(frozen=True)
class CostOrder:
    """Compares rows by one cost, the median over their runs.

    ``alike`` is the relative difference that repeated runs of one row show by themselves: costs
    closer than that are a tie. ``breakers`` break it by what does not vary, the first that tells.
    """

    read: Read
    alike: float
    breakers: tuple[Read, ...] = ()

    def tied(self, row: Row, other: Row) -> bool:
        """Whether the measured costs of two rows are as close as those of one row repeated."""
        a, b = self.read(row), self.read(other)
        return bool(a) and bool(b) and abs(math.log((a or 1) / (b or 1))) <= self.alike

    def less(self, row: Row, other: Row) -> bool:
        """Whether a row costs less than another one; an unknown cost is never less."""
        a, b = self.read(row), self.read(other)
        if a is None or b is None:
            return a is not None
        if not self.tied(row, other):
            return a < b
        for read in self.breakers:
            mine, theirs = read(row), read(other)
            if mine is not None and theirs is not None and mine != theirs:
                return mine < theirs
        return False

    def least(self, rows: Sequence[Row]) -> Row:
        """The row that costs least, the first of them where several do."""
        chosen = rows[0]
        for row in rows[1:]:
            if self.less(row, chosen):
                chosen = row
        return chosen


def memory_order(rows: Sequence[Row], kind: str) -> CostOrder:
    """The order by peak memory; on a CPU the planner's bytes break a tie, then the stored ones."""
    on_cpu = kind == "peak_resident_bytes"
    alike = _spread([row.peaks(kind) for row in rows])
    if alike is None:
        alike = CPU_UNKNOWN if on_cpu else ALWAYS_ALIKE
    breakers: tuple[Read, ...] = ()
    if on_cpu:
        breakers = (lambda row: row.predicted_bytes, lambda row: row.weight_bytes)
    return CostOrder(lambda row: row.peak_bytes(kind), alike, breakers)


def counts_steps(rows: Sequence[Row]) -> bool:
    """Whether the time of the steps is known of every row that was trained."""
    return all(row.step_times() for row in rows if row.plan.trains and row.measured)


def time_order(rows: Sequence[Row]) -> CostOrder:
    """The order by the time of the training steps.

    Compiling and set-up happen once in a run, however long it is, so they decide nothing. Where a
    record does not have its steps, all rows are taken by the time of the whole phase.
    """
    if not counts_steps(rows):
        return phase_time_order(rows)
    alike = _spread([row.step_times() for row in rows])
    return CostOrder(lambda row: row.step_seconds, TIME_UNKNOWN if alike is None else alike)


def phase_time_order(rows: Sequence[Row]) -> CostOrder:
    """The order by the time of the whole phase of training, compiling and set-up included."""
    alike = _spread([row.times("train") for row in rows])
    return CostOrder(lambda row: row.training_seconds, TIME_UNKNOWN if alike is None else alike)


def speed_order(rows: Sequence[Row]) -> CostOrder:
    """The order by tokens per second of steady steps; the slower row is the lesser one."""
    alike = _spread([row.speeds() for row in rows])
    return CostOrder(lambda row: row.tokens_per_second, TIME_UNKNOWN if alike is None else alike)


def energy_order(rows: Sequence[Row]) -> CostOrder:
    """The order by training energy."""
    alike = _spread([row.energies() for row in rows])
    return CostOrder(
        lambda row: row.energy_joules() if row.plan.trains else None,
        TIME_UNKNOWN if alike is None else alike,
    )


def _spread(costs: Sequence[Sequence[float]]) -> float | None:
    """By how much two runs of one row differ, from rows that ran more than once.

    At most twice the pooled standard deviation of one run's logarithm times the square root of
    two, at least one per cent; None where no row was repeated.
    """
    squares, freedom = 0.0, 0
    for found in costs:
        logs = [math.log(cost) for cost in found if cost > 0]
        if len(logs) > 1:
            mean = sum(logs) / len(logs)
            squares += sum((value - mean) ** 2 for value in logs)
            freedom += len(logs) - 1
    if freedom == 0:
        return None
    return max(2 * math.sqrt(2 * squares / freedom), ALWAYS_ALIKE)
