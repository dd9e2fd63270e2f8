"""Recomputation: how many layers of a plan keep what they computed, within the memory there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.spec.plan import Plan
from harness.weights.shape import transformers_config

# Predictions of training's peak were up to 2.1 % too low (reports/h100), and blocks lie apart.
USABLE = 0.95


def keeps_what_fits(plan: Plan) -> bool:
    """Whether ``plan`` leaves it to the forecast how many layers are computed again."""
    return plan.training.gradient_checkpointing == "auto"


def with_kept_layers(plan: Plan, needed: Callable[[Plan], int]) -> Plan:
    """``plan`` with the most kept layers whose memory, by ``needed``, fits.

    It must fit into ``training.memory_gib`` or else the device, less a margin for what a
    prediction may be wrong by. Where not even recomputing all layers does, all are recomputed.
    """
    config: Any = transformers_config(plan.model)
    depth = int(config.num_hidden_layers)
    room = _room(plan)
    low, high = 0, depth + 1  # low fits, or nothing does; high does not
    while high - low > 1:
        middle = (low + high) // 2
        fits = room is not None and needed(keeping(plan, middle)) <= room
        low, high = (middle, high) if fits else (low, middle)
    return keeping(plan, low)


def keeping(plan: Plan, layers: int) -> Plan:
    """``plan`` with all but the last ``layers`` recomputed."""
    changes = {"gradient_checkpointing": True, "kept_layers": layers}
    return plan.model_copy(update={"training": plan.training.model_copy(update=changes)})


def _room(plan: Plan) -> float | None:
    """Bytes that may be used, of what was given and of what there is; None where nobody knows."""
    given = plan.training.memory_gib * 2**30 if plan.training.memory_gib else None
    known = [size for size in (given, plan.device.memory_bytes) if size is not None]
    return USABLE * min(known) if known else None
