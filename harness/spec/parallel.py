"""Parallel: which ways of sharing a plan among several devices compute what they say."""

from __future__ import annotations

from harness.spec.variant import Training, Variant

# What is known of sharded training on the stack below, with the thread that tells it.
FSDP2_FOUR_BITS = (
    "FSDP2 does not shard 4-bit weights: as uint8 they are ignored parameters (accelerate #3987), "
    "stored as bfloat16 they are reported to lose their quantization state and go on with wrong "
    "numbers (bitsandbytes #1945)"
)
ZERO3_QUANTIZED = "DeepSpeed's ZeRO-3 knows no quantized weights (bitsandbytes #1249)"


def parallel_refusal(variant: Variant) -> str | None:
    """Why the devices of ``variant`` cannot share its training as asked; None: they can."""
    training = variant.training
    mismatch = _mismatch(training)
    if mismatch is not None or training.parallel != "sharded":
        return mismatch
    if variant.quantization.type != "none":
        return (
            f'parallel = "sharded" is not offered for {variant.quantization.label} weights: '
            f'{FSDP2_FOUR_BITS}; {ZERO3_QUANTIZED}. Use parallel = "data"'
        )
    return 'parallel = "sharded" is not offered yet. Use parallel = "data"'


def _mismatch(training: Training) -> str | None:
    if training.devices > 1 and training.parallel == "none":
        return f'devices = {training.devices} with parallel = "none"; expected "data"'
    if training.devices == 1 and training.parallel != "none":
        return f'parallel = "{training.parallel}" on one device; expected devices = 2 or more'
    return None
