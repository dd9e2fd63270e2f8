"""Weights: the bytes of weights, gradients and optimizer state, counted from the plan."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import Unpredicted
from harness.forecast.spread import NOTHING_SPREAD, SpreadWeights, spread_weights
from harness.spec.plan import Plan
from harness.spec.variant import DTYPE_BYTES
from harness.weights.shape import ParameterCount


@dataclass(frozen=True)
class LastingBytes:
    """Bytes that stay through a training step."""

    trainable: int
    """Trained parameters; the rest are bytes, on each device."""
    base: int
    adapter: int
    gradients: int
    optimizer: int
    spread: int = 0
    """Layers that devices share, those of all together."""
    gathered: int = 0
    """Layers that are whole for a while in training, where devices share the base."""


def standing_bytes(plan: Plan, counts: ParameterCount) -> LastingBytes:
    """Weights, gradients and optimizer state."""
    trainable = counts.trainable if plan.trains else 0
    adapter = trainable if plan.method == "adapter" else 0
    plain = counts.total - adapter - counts.quantized
    size = DTYPE_BYTES[plan.precision.trainable]
    base = plain * DTYPE_BYTES[plan.stored] + counts.quantized_bytes
    spread = spread_weights(plan) if plan.sharded else NOTHING_SPREAD

    own = base - spread.bytes + -(-spread.bytes // plan.training.devices)
    share = own / base if plan.method == "full" else 1.0  # of what stands beside each weight
    return LastingBytes(
        trainable=trainable,
        base=own,
        spread=spread.bytes,
        gathered=spread.gathered(trained=plan.method == "full") + _kept_casts(plan, spread),
        adapter=adapter * size,
        gradients=round(share * trainable * size),
        optimizer=round(share * _optimizer_bytes(plan, counts, size)) if trainable else 0,
    )


def _kept_casts(plan: Plan, spread: SpreadWeights) -> int:
    """Of trained layers cast for their products: what the backward pass is left with of all.

    On a GPU they are rehearsed with the step.
    """
    if plan.device.kind == "cuda":
        return 0
    stored, compute = DTYPE_BYTES[plan.stored], DTYPE_BYTES[plan.precision.compute]
    if plan.method != "full" or plan.training.gradient_checkpointing or stored == compute:
        return 0
    return sum(spread.layers) * compute // stored


# Bytes of state per trained parameter: Adam's two moments, in 8 bits a byte each and a float32
# per block of 256; paged, they are in managed memory, which the driver moves out when it is short.
EIGHT_BIT_BYTES = {"adamw_8bit": 2 * (1 + 4 / 256), "paged_adamw_8bit": 0.0}
TWO_MOMENTS = ("adamw", "loraplus", "lorafa")


def _optimizer_bytes(plan: Plan, counts: ParameterCount, size: int) -> int:
    """Bytes of the optimizer's state.

    Raises:
        Unpredicted: nobody has counted the state of this optimizer.
    """
    name, trained = plan.training.optimizer, counts.trainable
    if name in TWO_MOMENTS:
        return 2 * trained * size
    if name in EIGHT_BIT_BYTES:
        return round(trained * EIGHT_BIT_BYTES[name])
    if name == "muon" and plan.method == "full":  # a momentum for matrices, Adam's two for others
        return (2 * trained - counts.linear) * size
    raise Unpredicted(f"the state of the optimizer {name} is not counted")
