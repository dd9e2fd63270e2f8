"""Devices: what the processes of a run that several devices share leave, made one record."""

from __future__ import annotations

from harness.errors import HarnessError
from harness.records.events import EventTail, PhaseEnded
from harness.records.record import PEAKS, DeviceCost, PhaseCost, RunRecord, Status
from harness.records.store import RunFolder
from harness.runs.ending import Ending
from harness.spec.plan import Plan
from harness.spec.schema import Frozen
from harness.spec.storage import read_json

# Endings of processes that were made to end because of another one, or lost it.
MADE_TO_END, LOST = "interrupted", "LostDevice"


class DeviceEnding(Frozen):
    """How the process of one device ended, and when (seconds since the epoch)."""

    rank: int
    time: float
    status: Status
    kind: str
    message: str

    @classmethod
    def of(cls, rank: int, ending: Ending, time: float) -> DeviceEnding:
        """The ending of the process of device ``rank``."""
        return cls(
            rank=rank,
            time=time,
            status=ending.status,
            kind=ending.kind,
            message=ending.message,
        )


def cause(folder: RunFolder, plan: Plan) -> Ending | None:
    """What ended a run: the first device's process that did not end because of another.

    Where each has only lost another, that is what ended it. None where one device had the run, and
    where no process left a word.
    """
    found = []
    for rank in range(plan.training.devices):
        try:
            found.append(read_json(folder.ending_of(rank), DeviceEnding))
        except HarnessError:
            continue
    words = [ending for ending in found if ending.kind != MADE_TO_END]
    own = [ending for ending in words if ending.kind != LOST] or words
    if not own:
        return None
    earliest = min(own, key=lambda ending: ending.time)
    alike = [ending for ending in own if ending.kind == earliest.kind]
    if alike[0].rank == 0:  # all found the same, and the first one says where
        return Ending(alike[0].status, alike[0].kind, alike[0].message)
    message = f"device {earliest.rank}: {earliest.message}"
    return Ending(earliest.status, earliest.kind, message)


def with_devices(record: RunRecord, folder: RunFolder) -> RunRecord:
    """The record with what each phase cost on every device.

    A phase's peaks are those of the device with the highest, its energy is that of all.
    """
    count = record.plan.training.devices
    if count == 1 or any(cost.devices for cost in record.phases):
        return record
    others = [_costs(folder, rank) for rank in range(1, count)]
    phases = tuple(
        _joined(cost, [own[cost.name] for own in others if cost.name in own])
        for cost in record.phases
    )
    return record.model_copy(update={"phases": phases})


def _costs(folder: RunFolder, rank: int) -> dict[str, PhaseCost]:
    events = EventTail(folder.events_of(rank)).new()
    return {event.cost.name: event.cost for event in events if isinstance(event, PhaseEnded)}


def _joined(first: PhaseCost, others: list[PhaseCost]) -> PhaseCost:
    if not others:
        return first
    costs = [first, *others]
    devices = tuple(
        DeviceCost(
            **{name: getattr(cost, name) for name in PEAKS}, energy_joules=cost.energy_joules
        )
        for cost in costs
    )
    peaks = {name: _most([getattr(cost, name) for cost in costs]) for name in PEAKS}
    return first.model_copy(update={**peaks, "energy_joules": _energy(costs), "devices": devices})


def _most(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return max(known, default=None)


def _energy(costs: list[PhaseCost]) -> float | None:
    """Of all GPUs. A processor's counters count for all processes; only the first reads them."""
    if costs[0].energy_source != "nvml":
        return costs[0].energy_joules
    joules = [cost.energy_joules for cost in costs]
    known = [value for value in joules if value is not None]
    return sum(known) if len(known) == len(joules) else None
