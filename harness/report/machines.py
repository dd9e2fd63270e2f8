"""Machines: on which devices rows ran, and which of their costs can be set against each other."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.rows import Row


def same_machine(row: Row, other: Row) -> bool:
    """Whether what two rows cost can be compared: they ran on devices that cost alike."""
    return row.plan.device.costs_like(other.plan.device)


def named_apart(row: Row, rows: Sequence[Row]) -> str:
    """The device of a row, told from that of the first row that ran on another one."""
    other = next((one for one in rows if not same_machine(one, row)), row)
    return row.plan.device.told_from(other.plan.device)
