"""Weights: the bytes of weights, gradients and optimizer state, counted from the plan."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import Unpredicted
from harness.quantize.scheme import find_scheme
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
    """Layers that are whole for a while, where devices share the base."""


def standing_bytes(plan: Plan, counts: ParameterCount) -> LastingBytes:
    """Weights, gradients and optimizer state."""
    trainable = counts.trainable if plan.trains else 0
    adapter = trainable if plan.method == "adapter" else 0
    plain = counts.total - adapter - counts.quantized
    size = DTYPE_BYTES[plan.precision.trainable]
    base = plain * DTYPE_BYTES[plan.stored] + counts.quantized_bytes
    layers = _flat_layers(plan) if plan.sharded else []
    return LastingBytes(
        trainable=trainable,
        base=base - sum(layers) + -(-sum(layers) // plan.training.devices),
        spread=sum(layers),
        gathered=GATHERED * max(layers, default=0),
        adapter=adapter * size,
        gradients=trainable * size,
        optimizer=_optimizer_bytes(plan, counts, size) if trainable else 0,
    )


# Sharded layers that are whole at a time: the one in use, and the next or the last.
GATHERED = 2


def _flat_layers(plan: Plan) -> list[int]:
    """Bytes of each layer that devices share: all but quantization constants.

    Raises:
        RunError: the model does not say what its layers are.
    """
    from harness.quantize.layers import taken_layers
    from harness.weights.by_layer import decoder_layers
    from harness.weights.shape import meta_model

    model = meta_model(plan.model)
    taken = {id(module.weight) for _, module in taken_layers(model, find_scheme(plan.quantization))}
    unit = DTYPE_BYTES[plan.stored]
    return [
        sum(
            -(-one.numel() // 2) if id(one) in taken else one.numel() * unit
            for one in layer.parameters()
        )
        for _, layer in decoder_layers(model)
    ]


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
