"""Loading: what is on a GPU for a while beside the weights, while a base is loaded and checked."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from harness.forecast.overhead import CUBLAS_BYTES, Overhead
from harness.forecast.weights import GATHERED, AskedOf, SpreadWeights, spread_weights
from harness.quantize.scheme import find_scheme
from harness.spec.model import DrawnSource
from harness.spec.plan import Plan
from harness.spec.variant import DTYPE_BYTES
from harness.weights.shape import ParameterCount, meta_model
from harness.weights.sharded import COMPARED


def beside_weights(plan: Plan, counts: ParameterCount, around: Overhead) -> int:
    """Most bytes beside what stays of the weights; resident ones on a processor.

    A sharded base is checked: its first layers are run forward and back before they are spread,
    and once all are. The few tokens of that are not counted.
    """
    on_gpu = plan.device.kind == "cuda"
    one = around.loading if not on_gpu or not _by_layer(plan) else _filled(plan, counts)
    if not plan.sharded:
        return one
    spread = spread_weights(plan)
    checked = _trained(plan, counts, spread) if plan.method == "full" else _frozen(plan, spread)
    return max(one, checked + 2 * CUBLAS_BYTES) if on_gpu else one + checked


def _by_layer(plan: Plan) -> bool:
    return plan.sharded or isinstance(plan.model.source, DrawnSource)


def _filled(plan: Plan, counts: ParameterCount) -> int:
    """The last layer before it is quantized, beyond the share of it that is among the weights.

    A drawn layer is there as a whole, and of one from a file one weight; its first quantized
    weight stands beside it.
    """
    elements, taken = _last_layer(AskedOf.of(plan))
    packed = counts.quantized_bytes / counts.quantized if counts.quantized else 0.0
    unit = DTYPE_BYTES[plan.stored]
    loaded = (elements - sum(taken)) * unit + round(sum(taken) * packed)
    share = loaded // plan.training.devices if plan.sharded else loaded
    if isinstance(plan.model.source, DrawnSource):
        return max(0, elements * unit + round(sum(taken[:1]) * packed) - share)
    return loaded - share + counts.largest * DTYPE_BYTES[plan.precision.compute]


@lru_cache(maxsize=64)
def _last_layer(asked: AskedOf) -> tuple[int, tuple[int, ...]]:
    """Elements of the decoder's last layer, and of each of its weights that is quantized."""
    from harness.quantize.layers import taken_layers
    from harness.weights.by_layer import decoder_layers

    model: Any = meta_model(asked.plan.model)
    name, layer = decoder_layers(model)[-1]
    weights: list[Any] = [
        module.weight
        for one, module in taken_layers(model, find_scheme(asked.plan.quantization))
        if one.startswith(f"{name}.")
    ]
    elements = sum(parameter.numel() for parameter in layer.parameters())
    return elements, tuple(weight.numel() for weight in weights)


def _frozen(plan: Plan, spread: SpreadWeights) -> int:
    """FSDP gathers the embeddings beside their shares, or one layer before it lets go of another.

    A shallow model needs most while its embeddings are spread: they are there whole and once more
    in one flat tensor, and all but the first layers are still to come.
    """
    shallow = 2 * spread.before - sum(spread.layers[COMPARED:]) // plan.training.devices
    return max(spread.before, GATHERED * spread.largest, shallow)


def _trained(plan: Plan, counts: ParameterCount, spread: SpreadWeights) -> int:
    """What FSDP2 needs in the backward pass through all layers that makes room for it.

    When that comes to the second layer, the gradients of all layers above it are there, each
    device's part of them, and of the output layer's those that are added up too: it is spread by
    itself, and FSDP2 lets go of its tensor at the end of the pass. The gradients of the first
    layers when they were whole are kept to be compared with. Weights that stay whole have theirs.
    """
    devices = plan.training.devices
    kept = sum(spread.layers[:COMPARED])
    above = sum(spread.layers) - kept + spread.after
    whole = counts.total * DTYPE_BYTES[plan.stored] - spread.bytes
    return kept + spread.gathered(trained=True) + spread.after + above // devices + whole
