"""Machines: on which devices rows ran, and which of their costs can be set against each other."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.rows import Row

COSTS = "memory, speed, time and energy"


def same_machine(row: Row, other: Row) -> bool:
    """Whether what two rows cost can be compared: they ran on devices that cost alike."""
    return row.plan.device.costs_like(other.plan.device)


def of_most(rows: Sequence[Row], reference: str | None) -> tuple[Row, ...]:
    """The rows on the device of most finished ones; of as many, those of the reference's.

    All of them where they ran on one device.
    """
    if not rows:
        return ()

    def weight(row: Row) -> tuple[int, bool]:
        beside = [one for one in rows if same_machine(one, row)]
        finished = sum(bool(one.finished) for one in beside)
        return finished, any(one.label == reference for one in beside)

    chosen = max(rows, key=weight)
    return tuple(row for row in rows if same_machine(row, chosen))


def named_apart(row: Row, rows: Sequence[Row]) -> str:
    """The device of a row, told from all others on which rows ran."""
    others = {one.plan.device for one in rows if not same_machine(one, row)}
    return row.plan.device.told_from(*others)


def several(rows: Sequence[Row]) -> bool:
    """Whether rows ran on devices that do not cost alike."""
    return any(not same_machine(row, rows[0]) for row in rows[1:])


def apart_said(rows: Sequence[Row]) -> str:
    """That rows ran on several devices, so that costs are compared on one alone; or nothing."""
    if not several(rows):
        return ""
    names = sorted({named_apart(row, rows) for row in rows})
    return (
        f"These rows ran on {len(names)} devices ({', '.join(names)}): their {COSTS} are compared "
        "only between rows of one device."
    )
