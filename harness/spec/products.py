"""Products: where frozen layers can be multiplied in eight-bit floats, known before loading."""

from __future__ import annotations

from collections.abc import Iterator

from harness.spec.device import FLOAT8_CAPABILITY, Device
from harness.spec.schemes import load_scheme
from harness.spec.variant import Adapter, Precision, Variant


def products_refusal(variant: Variant, precision: Precision, device: Device) -> str | None:
    """Why ``precision.products`` cannot be had; None: it can, or nothing special is asked.

    ``precision`` is what is left of the variant's on ``device``. A CPU rounds as a GPU does and
    multiplies in float32, so that the same answers can be had anywhere.
    """
    if precision.products == "compute":
        return None
    return next(_reasons(variant, precision, device), None)


def _reasons(variant: Variant, precision: Precision, device: Device) -> Iterator[str]:
    kind = variant.quantization.type
    if variant.method == "full":
        yield "full fine-tuning trains the weights whose products would be rounded"
    if variant.training.parallel == "sharded":
        yield 'parallel = "sharded" keeps its layers in parts'
    if not load_scheme(kind).plain_product:
        yield f"{kind} layers have products of their own"
    if variant.adapter is not None:
        yield from _reasons_of_adapter(variant.adapter)
    if device.kind == "cuda" and not device.float8:
        least = ".".join(map(str, FLOAT8_CAPABILITY))
        yield f"{device.name} has none; it takes compute capability {least} or higher"
    if device.kind == "cuda" and precision.compute != "bfloat16":
        yield f"they give bfloat16, and precision.compute is {precision.compute}"


def _reasons_of_adapter(adapter: Adapter) -> Iterator[str]:
    """Adapters that take the base's weight and multiply by themselves."""
    if adapter.type != "LORA":
        yield f"{adapter.type} adapters may compute the base's product themselves"
    if adapter.fields.get("use_dora"):
        yield "DoRA computes the base's product itself"
