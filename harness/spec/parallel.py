"""Parallel: which ways of sharing a plan among several devices compute what they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.spec.methods import initialisation
from harness.spec.variant import Adapter, Training, Variant

if TYPE_CHECKING:
    from harness.spec.plan import Plan

# What is known of sharded training on the stack below, with the thread that tells it.
INTEGERS = (
    "FSDP flattens numbers of one dtype and no integers (peft #1432), and of all schemes only the "
    "4-bit ones of bitsandbytes can keep packed weights as such (bitsandbytes #970)"
)
INT8 = "FSDP does not take the int8 weights of bitsandbytes (bitsandbytes #1709, peft #2833)"
FSDP2_FOUR_BITS = (
    "FSDP2 does not shard 4-bit weights: as uint8 they are ignored parameters (accelerate #3987), "
    "stored as bfloat16 they are reported to lose their quantization state and go on with wrong "
    "numbers (bitsandbytes #1945)"
)
ZERO3_QUANTIZED = "DeepSpeed's ZeRO-3 knows no quantized weights (bitsandbytes #1249)"
READS_WEIGHTS = (
    "it reads or changes the base's weights, of which every device has only a part (DoRA: peft "
    "#1737, #1984)"
)
MERGES = "a merged or written form needs the whole model on one device"
EIGHT_BITS = ("adamw_8bit", "paged_adamw_8bit")
BLOCKS = (
    "its moments are kept in blocks of 8-bit numbers, which do not end where a device's part of a "
    "weight does (bitsandbytes #89)"
)
WHOLE_MATRICES = "it reads whole matrices, of which every device has only a part"
SCALED = "each device would scale its part of the gradients by itself"
FOUR_BITS = ("nf4", "fp4")
# Fields of LoRA that leave the base's weights alone, whatever their value.
PLAIN_FIELDS = frozenset(
    {
        "r",
        "lora_alpha",
        "lora_dropout",
        "target_modules",
        "exclude_modules",
        "use_rslora",
        "rank_pattern",
        "alpha_pattern",
        "layers_to_transform",
        "layers_pattern",
        "lora_bias",
        "bias",
        "fan_in_fan_out",
    }
)


def parallel_refusal(asked: Variant | Plan, forms: Sequence[str] = ("training",)) -> str | None:
    """Why the devices of a variant or plan cannot share it as asked; None: they can.

    ``forms`` are those that are to be scored.
    """
    mismatch = _mismatch(asked.training)
    if mismatch is not None or asked.training.parallel != "sharded":
        return mismatch
    reason = _unsharded_base(asked) or _unsharded_adapter(asked.adapter)
    others = [form for form in forms if form not in ("training", "adapter")]
    if reason is None and others:
        reason = f"the forms {', '.join(others)}: {MERGES}"
    if reason is None:
        return None
    return f'parallel = "sharded" is not offered for {reason}. Use parallel = "data"'


def _mismatch(training: Training) -> str | None:
    if training.devices > 1 and training.parallel == "none":
        return f'devices = {training.devices} with parallel = "none"; expected "data" or "sharded"'
    if training.devices == 1 and training.parallel != "none":
        return f'parallel = "{training.parallel}" on one device; expected devices = 2 or more'
    return None


def _unsharded_base(asked: Variant | Plan) -> str | None:
    quantization = asked.quantization
    if asked.method == "full":
        return _unsharded_training(asked)
    if quantization.type in ("none", *FOUR_BITS):
        return None
    reason = INT8 if quantization.type == "int8" else INTEGERS
    return f"{quantization.label} weights: {reason}"


def _unsharded_training(asked: Variant | Plan) -> str | None:
    """Optimizers of the kind that treats every number by itself can be given a part of them."""
    optimizer = asked.training.optimizer
    if optimizer in EIGHT_BITS:
        return f"the optimizer {optimizer}: {BLOCKS}"
    if optimizer != "adamw":
        return f"the optimizer {optimizer}: {WHOLE_MATRICES}"
    if asked.precision.compute == "float16":
        return f"full fine-tuning in float16: {SCALED}"
    return None


def _unsharded_adapter(adapter: Adapter | None) -> str | None:
    """Only a plain LoRA leaves the base's weights alone."""
    if adapter is None:
        return None
    if adapter.type != "LORA":
        return f"{adapter.type} adapters: {READS_WEIGHTS}"
    for name, value in adapter.fields.items():
        plain = name in PLAIN_FIELDS or value in (None, False, {}, [])
        drawn = name == "init_lora_weights" and (value is True or initialisation(adapter) in DRAWN)
        if not plain and not drawn:
            return f"LoRA with {name} = {value!r}: {READS_WEIGHTS}"
    if adapter.fields.get("bias") not in (None, "none"):
        return "LoRA with trained biases of the base: they lie among its frozen weights"
    return None


DRAWN = ("gaussian",)  # initialisations of LoRA that read no weights
