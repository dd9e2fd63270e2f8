"""Memory: the peak of every phase of a plan, predicted before anything is downloaded."""

from __future__ import annotations

from harness.model.shape import ParameterCount, count_parameters
from harness.plan import Plan
from harness.record import MemoryPrediction
from harness.variant import Quantization

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def predict(plan: Plan) -> MemoryPrediction:
    """Peak bytes of each phase.

    Raises:
        InvalidFile: the model's TOML states no shape, or PEFT refuses the adapter.
    """
    counts = count_parameters(plan.model, plan.method, plan.adapter)
    weights = weight_bytes(plan, counts)
    fields = plan.model.config
    width, layers = int(str(fields["hidden_size"])), int(str(fields["num_hidden_layers"]))
    tokens = plan.training.micro_batch_size * plan.training.sequence_length
    activations = tokens * width * layers * DTYPE_BYTES[plan.precision.compute] * 20
    trained = counts.trainable * (DTYPE_BYTES[plan.precision.trainable] + 8) if plan.trains else 0
    by_phase = {"load": weights, "train": weights + trained + activations, "score": weights}
    if not plan.trains:
        del by_phase["train"]
    return MemoryPrediction(by_phase=by_phase, peak_bytes=max(by_phase.values()))


def weight_bytes(plan: Plan, counts: ParameterCount) -> int:
    """Stored bytes of all weights with the adapter, quantization state included."""
    stored = plan.precision.trainable if plan.method == "full" else plan.precision.compute
    adapter = counts.trainable if plan.method == "adapter" else 0
    plain = counts.total - adapter - counts.quantizable
    return round(
        plain * DTYPE_BYTES[stored]
        + counts.quantizable * bits_per_parameter(plan.quantization, stored) / 8
        + adapter * DTYPE_BYTES[plan.precision.trainable]
    )


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
