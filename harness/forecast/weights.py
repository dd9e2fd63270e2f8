"""Weights: the bytes of weights, gradients and optimizer state, counted from the plan."""

from __future__ import annotations

from dataclasses import dataclass

from harness.spec.plan import Plan
from harness.spec.variant import DTYPE_BYTES
from harness.weights.shape import ParameterCount


@dataclass(frozen=True)
class Standing:
    """Bytes that stay through a training step."""

    trainable: int
    """Trained parameters; the rest are bytes."""
    base: int
    adapter: int
    gradients: int
    optimizer: int


def standing_bytes(plan: Plan, counts: ParameterCount) -> Standing:
    """Weights, gradients and optimizer state."""
    trainable = counts.trainable if plan.trains else 0
    adapter = trainable if plan.method == "adapter" else 0
    plain = counts.total - adapter - counts.quantized
    size = DTYPE_BYTES[plan.precision.trainable]
    return Standing(
        trainable=trainable,
        base=plain * DTYPE_BYTES[plan.stored] + counts.quantized_bytes,
        adapter=adapter * size,
        gradients=trainable * size,
        optimizer=round(trainable * _optimizer_bytes(plan.training.optimizer, size)),
    )


def _optimizer_bytes(optimizer: str, size: int) -> float:
    """Bytes of Adam's two moments per trained parameter.

    8-bit: a byte each and a float32 per block of 256. Paged: in managed memory, which the driver
    moves out when it is short.
    """
    return {"adamw": 2.0 * size, "adamw_8bit": 2 * (1 + 4 / 256), "paged_adamw_8bit": 0}[optimizer]
