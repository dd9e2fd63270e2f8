"""Memory: which rows need less, where repeated runs do not tell, and what breaks a tie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.rows import Row

ALWAYS_ALIKE = 0.01
CPU_UNKNOWN = 0.25


@dataclass(frozen=True)
class MemoryOrder:
    """Compares rows by peak memory.

    ``alike`` is the relative difference that repeated runs of one row show by themselves: peaks
    closer than that are a tie. On a CPU a tie is broken by the planner's bytes, then by the
    stored ones, which do not vary.
    """

    kind: str
    alike: float
    on_cpu: bool

    def known(self, row: Row) -> int | None:
        """A row's peak memory: the median over its runs."""
        return row.peak_bytes(self.kind)

    def tied(self, row: Row, other: Row) -> bool:
        """Whether the measured peaks of two rows are as close as those of one row repeated."""
        a, b = self.known(row), self.known(other)
        return a is not None and b is not None and abs(math.log(a / b)) <= self.alike

    def less(self, row: Row, other: Row) -> bool:
        """Whether a row needs less than another one."""
        a, b = self.known(row), self.known(other)
        if a is None or b is None:
            return a is not None
        if not self.tied(row, other):
            return a < b
        if not self.on_cpu:
            return False
        for mine, theirs in (
            (row.predicted_bytes, other.predicted_bytes),
            (row.weight_bytes, other.weight_bytes),
        ):
            if mine is not None and theirs is not None and mine != theirs:
                return mine < theirs
        return False

    def least(self, rows: Sequence[Row]) -> Row:
        """The row that needs least, the first of them where several do."""
        chosen = rows[0]
        for row in rows[1:]:
            if self.less(row, chosen):
                chosen = row
        return chosen


def memory_order(rows: Sequence[Row], kind: str) -> MemoryOrder:
    """The order of these rows, with the spread of their repeated runs.

    A tie is a difference of at most twice the pooled standard deviation of one run's log peak
    times the square root of two, at least one per cent; on a CPU without repeats 25 %.
    """
    squares, freedom = 0.0, 0
    for row in rows:
        logs = [math.log(peak) for peak in row.peaks(kind) if peak > 0]
        if len(logs) > 1:
            mean = sum(logs) / len(logs)
            squares += sum((value - mean) ** 2 for value in logs)
            freedom += len(logs) - 1
    on_cpu = kind == "peak_resident_bytes"
    if freedom == 0:
        return MemoryOrder(kind, CPU_UNKNOWN if on_cpu else ALWAYS_ALIKE, on_cpu)
    spread = 2 * math.sqrt(2 * squares / freedom)
    return MemoryOrder(kind, max(spread, ALWAYS_ALIKE), on_cpu)
