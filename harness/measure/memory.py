"""Memory: the peak of every phase of a plan, predicted before anything is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.measure.peaks import TrainingPeaks
from harness.measure.streams import fast_training, takes_fast_path
from harness.model.shape import (
    ParameterCount,
    count_parameters,
    meta_model,
    quantizable_layers,
)
from harness.plan import Plan
from harness.record import MemoryPrediction
from harness.variant import Quantization

MIB = 1 << 20
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Resident size of a child once torch, transformers, PEFT, TRL and lm-eval are imported (measured).
LIBRARIES_BYTES = 900 * MIB
# cuBLAS keeps one workspace for each of the two threads that use it, forward and backward.
CUBLAS_BYTES = 2 * 32 * MIB
# The driver's own memory for a process (context, kernels), outside torch's allocator: 1.16 GiB
# were measured on an H100 after training and scoring.
CONTEXT_BYTES = 1200 * MIB
SCORED_LOGITS_BYTES = {"cpu": 24 * MIB, "cuda": 256 * MIB}  # harness.score.body holds at a time
SCORED_TOKENS_CPU = 512


@dataclass(frozen=True)
class Standing:
    """Bytes that stay through a training step."""

    trainable: int
    """Trained parameters; the rest are bytes."""
    base: int
    adapter: int
    gradients: int
    optimizer: int


def predict(plan: Plan) -> MemoryPrediction:
    """Peak bytes of each phase: by torch's allocator on a GPU, resident on a CPU.

    Weights and optimizer state are counted; what a step allocates is found by rehearsing it on
    the meta device with the real modules (:mod:`harness.measure.steps`). Rows are taken to be
    ``sequence_length`` long and fully labelled, so a corpus of shorter rows needs less.

    Raises:
        InvalidFile: the model's TOML states no shape, or PEFT refuses the adapter.
    """
    from harness.measure.steps import rehearse_scoring

    counts = count_parameters(plan.model, plan.method, plan.adapter)
    standing = standing_bytes(plan, counts)
    cpu = plan.device.kind == "cpu"
    floor = LIBRARIES_BYTES if cpu else CUBLAS_BYTES // 2
    tokens = min(plan.score.batch_tokens, SCORED_TOKENS_CPU) if cpu else plan.score.batch_tokens
    logits = SCORED_LOGITS_BYTES[plan.device.kind]
    # a chunk's float32 logits live until the next are there, beside those in the compute dtype
    scoring = max(rehearse_scoring(plan, tokens), 5 * logits // 2)
    by_phase = {"load": standing.base + _loading_bytes(plan)}
    parts: dict[str, int] = {"weights": standing.base}
    if plan.trains:
        by_phase["score_base"] = floor + standing.base + scoring
        parts |= _training_parts(plan, standing)
        by_phase["train"] = sum(parts.values())
    by_phase["score"] = floor + standing.base + standing.adapter + scoring
    return MemoryPrediction(by_phase=by_phase, peak_bytes=max(by_phase.values()), parts=parts)


def _training_parts(plan: Plan, standing: Standing) -> dict[str, int]:
    """What the peak of a training step is made of, weights left out."""
    rows = plan.training.micro_batch_size
    step = _rehearse(plan, rows * plan.training.sequence_length, standing.trainable)
    kept = takes_fast_path(plan) or plan.budget.batch_size > rows
    return {
        "adapter": standing.adapter,
        "optimizer": standing.optimizer,
        "gradients": standing.gradients if kept else 0,
        "activations": step.saved,
        "loss": max(step.loss - step.saved, 0),
        "backward": max(step.peak - max(step.loss, step.saved), 0),
        "libraries": LIBRARIES_BYTES if plan.device.kind == "cpu" else CUBLAS_BYTES,
    }


def _rehearse(plan: Plan, tokens: int, trainable: int) -> TrainingPeaks:
    from harness.measure.steps import rehearse_training

    if takes_fast_path(plan):
        return fast_training(plan, tokens, trainable)
    return rehearse_training(plan, plan.training.micro_batch_size, plan.training.sequence_length)


def fits(plan: Plan, memory_bytes: int) -> bool:
    """Whether the plan's peak and the driver's own memory fit into ``memory_bytes``."""
    return room_needed(plan, predict(plan).peak_bytes) <= memory_bytes


def room_needed(plan: Plan, peak_bytes: int) -> int:
    """Memory a device must have for a predicted peak."""
    return peak_bytes + (CONTEXT_BYTES if plan.device.kind == "cuda" else 0)


def largest_batch(plan: Plan, memory_bytes: int) -> int | None:
    """The largest micro-batch whose training step fits, 0 if not even one row does.

    None if the plan trains nothing. Gradients are not kept from one micro-batch to the next.
    """
    if not plan.trains:
        return None
    counts = count_parameters(plan.model, plan.method, plan.adapter)

    def needed(rows: int) -> int:
        training = plan.training.model_copy(update={"micro_batch_size": rows})
        budget = plan.budget.model_copy(update={"batch_size": rows})
        wider = plan.model_copy(update={"training": training, "budget": budget})
        standing = standing_bytes(wider, counts)
        parts = _training_parts(wider, standing)
        return room_needed(plan, standing.base + sum(parts.values()))

    return _largest_fitting(needed, memory_bytes)


def _largest_fitting(needed: Callable[[int], int], room: int) -> int:
    """The largest argument for which ``needed``, rising and nearly linear, is within ``room``."""
    low, at_low = 0, 0  # fits
    step, at_step = 1, needed(1)
    while at_step <= room:
        slope = max((at_step - at_low) // (step - low), 1) if low else at_step
        low, at_low = step, at_step
        step = low + max(1, (room - at_low) // slope)
        at_step = needed(step)
    high = step  # does not fit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needed(middle) <= room else (low, middle)
    return low


def standing_bytes(plan: Plan, counts: ParameterCount) -> Standing:
    """Weights, gradients and optimizer state."""
    stored = plan.precision.trainable if plan.method == "full" else plan.precision.compute
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


def _loading_bytes(plan: Plan) -> int:
    """The largest linear weight before it is quantized."""
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
