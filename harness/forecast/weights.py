"""Weights: the bytes of weights, gradients and optimizer state, counted from the plan."""

from __future__ import annotations

from dataclasses import dataclass

from harness.spec.plan import Plan
from harness.spec.variant import Quantization
from harness.weights.shape import ParameterCount, meta_model, quantizable_layers

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


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
    stored = plan.stored
    trainable = counts.trainable if plan.trains else 0
    adapter = trainable if plan.method == "adapter" else 0
    plain = counts.total - adapter - counts.quantizable
    bits = bits_per_parameter(plan.quantization, stored)
    size = DTYPE_BYTES[plan.precision.trainable]
    return Standing(
        trainable=trainable,
        base=round(plain * DTYPE_BYTES[stored] + counts.quantizable * bits / 8),
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


def largest_linear_bytes(plan: Plan) -> int:
    """The largest linear weight before it is quantized; 0 if none is."""
    if plan.quantization.type == "none":
        return 0
    layers = quantizable_layers(meta_model(plan.model))
    largest = max((layer.weight.numel() for layer in layers), default=0)
    return largest * DTYPE_BYTES[plan.precision.compute]


def bits_per_parameter(quantization: Quantization, stored: str) -> float:
    """Bits of one quantized parameter, its share of the quantization constants included.

    4 bits: a float32 constant per block of 64 (0.5 bit); with double quantization 8 bits per
    block and a float32 per 256 blocks (0.127 bit), after Dettmers et al., "QLoRA", 2023, section
    3. int8: a float32 per row, left out here since it depends on the shape.
    """
    if quantization.type == "none":
        return DTYPE_BYTES[stored] * 8
    if quantization.type == "int8":
        return 8
    return 4 + (8 / 64 + 32 / (64 * 256) if quantization.double else 32 / 64)
