"""Show: a plan and its predicted costs for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from harness.measure.gpus import parse_memory
from harness.measure.memory import predict
from harness.plan import Plan

if TYPE_CHECKING:
    from rich.console import RenderableType

GIB = 1 << 30


def plan_report(plan: Plan, memory: str = "") -> RenderableType:
    """What a run of ``plan`` would need, and whether it fits into ``memory`` or the device's.

    Raises:
        UserError: ``memory`` is not an amount of memory.
    """
    room = parse_memory(memory) if memory else plan.device.memory_bytes
    prediction = predict(plan)
    table = Table(title=f"{plan.variant} on {plan.device.name}")
    table.add_column("phase")
    table.add_column("peak", justify="right")
    for phase, size in prediction.by_phase.items():
        table.add_row(phase, f"{size / GIB:.2f} GiB")
    if room is not None:
        fits = "fits into" if prediction.peak_bytes <= room else "does not fit into"
        table.caption = f"{fits} {room / GIB:.1f} GiB"
    return table
