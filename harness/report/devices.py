"""Devices: what each device cost, of runs that several devices shared."""

from __future__ import annotations

from collections.abc import Iterator

from harness import numbers
from harness.records.record import DeviceCost, PhaseCost
from harness.report.blocks import Cell, Column, Section, Table, prose, unknown
from harness.report.evidence import Evidence
from harness.report.rows import MEMORY_KINDS, Row


def devices_section(evidence: Evidence) -> Section | None:
    """Peak memory and energy of every device in its costliest phases; None where none is shared."""
    lines = [line for row in evidence.ranked for line in _lines(row, evidence.memory_kind)]
    if not lines:
        return None
    columns = (
        Column("variant", number=False),
        Column("phase", number=False),
        Column("peak memory of each device", number=False),
        Column("energy of each device", number=False),
    )
    note = prose(
        "Several devices shared these runs: each had the whole model and a part of every batch. "
        "Elsewhere in this report a peak is that of the device with the highest, and energy is "
        "that of all GPUs. Tokens per second are those of all devices together. Figures are of "
        "the first run of a variant."
    )
    kind = MEMORY_KINDS[evidence.memory_kind]
    table = Table("devices", columns, tuple(lines), f"{kind[:1].upper()}{kind[1:]}.")
    return Section("devices", "Each device", (note, table))


def _lines(row: Row, kind: str) -> Iterator[tuple[Cell, ...]]:
    for cost in row.records[0].phases:
        if cost.devices and cost.name in ("train", "score"):
            yield _line(row, cost, kind)


def _line(row: Row, cost: PhaseCost, kind: str) -> tuple[Cell, ...]:
    peaks = [getattr(device, kind) for device in cost.devices]
    return (
        Cell(row.label, row.label, style="code"),
        Cell(cost.name, cost.name),
        Cell(", ".join(map(numbers.size, peaks)), cost.name),
        _energy(cost.devices),
    )


def _energy(devices: tuple[DeviceCost, ...]) -> Cell:
    joules = [device.energy_joules for device in devices]
    if all(value is None for value in joules):
        return unknown()
    return Cell(", ".join(map(numbers.energy, joules)), None)
