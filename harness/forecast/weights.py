"""Weights: the bytes of weights, gradients and optimizer state, counted from the plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

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
    """Layers that are whole for a while in training, where devices share the base."""
    scored: int = 0
    """Layers that are whole for a while in a forward pass."""
    around: int = 0
    """Spread weights around the layers that are whole, too, while scores are taken."""


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
        scored=spread.largest * (SCORED if plan.method == "full" else 1),
        around=spread.before + spread.after if plan.method == "full" else 0,
        adapter=adapter * size,
        gradients=round(share * trainable * size),
        optimizer=round(share * _optimizer_bytes(plan, counts, size)) if trainable else 0,
    )


# Layers that are whole at a time: of trained ones the one in use, and the next or the last. In a
# forward pass FSDP2 lets go of the buffer that the last one came in only once it has copied this
# one out of its own.
GATHERED, SCORED = 2, 3


@dataclass(frozen=True)
class SpreadWeights:
    """Bytes of what devices share: each layer, and what stands before and after them."""

    layers: tuple[int, ...] = ()
    before: int = 0
    after: int = 0

    @property
    def bytes(self) -> int:
        """All of it, on all devices together."""
        return sum(self.layers) + self.before + self.after

    @property
    def largest(self) -> int:
        """The largest layer."""
        return max(self.layers, default=0)

    def gathered(self, *, trained: bool) -> int:
        """What is whole for a while on each device, gradients on their way included.

        Of a trained layer that is its gradients and the tensor that they are added up in, while
        the layer before is gathered; embeddings are whole through all of the backward pass.
        """
        if not trained:  # embeddings are let go of before a layer has computed anything
            return self.largest
        return max(2 * self.after, self.before + (GATHERED + 2) * self.largest)


def _kept_casts(plan: Plan, spread: SpreadWeights) -> int:
    """Of trained layers cast for their products: what the backward pass is left with of all."""
    stored, compute = DTYPE_BYTES[plan.stored], DTYPE_BYTES[plan.precision.compute]
    if plan.method != "full" or plan.training.gradient_checkpointing or stored == compute:
        return 0
    return sum(spread.layers) * compute // stored


NOTHING_SPREAD = SpreadWeights()


@dataclass(frozen=True)
class AskedOf:
    """A plan; equal to others whose parts that matter here are equal, as JSON."""

    written: str
    plan: Plan = field(compare=False)

    @classmethod
    def of(cls, plan: Plan) -> AskedOf:
        """The plan, with what its weights' sizes depend on written down."""
        parts = {"model", "method", "adapter", "quantization", "precision"}
        return cls(plan.model_dump_json(include=parts), plan)


def spread_weights(plan: Plan) -> SpreadWeights:
    """What devices share of the plan's weights.

    Raises:
        RunError: the model does not say what its layers are.
    """
    return _count_spread(AskedOf.of(plan))


@lru_cache(maxsize=64)
def _count_spread(asked: AskedOf) -> SpreadWeights:
    """The layers, but for quantization constants, and embeddings; where all is trained, all.

    A model is built for it, and ways of dividing a plan ask for the same several times.

    Raises:
        RunError: the model does not say what its layers are.
    """
    from harness.quantize.layers import taken_layers
    from harness.weights.by_layer import decoder_layers
    from harness.weights.shape import meta_model
    from harness.weights.sharded import spread_embeddings

    plan = asked.plan
    model: Any = meta_model(plan.model)
    taken = {id(module.weight) for _, module in taken_layers(model, find_scheme(plan.quantization))}
    unit = DTYPE_BYTES[plan.stored]
    layers = tuple(
        sum(
            -(-one.numel() // 2) if id(one) in taken else one.numel() * unit
            for one in layer.parameters()
        )
        for _, layer in decoder_layers(model)
    )
    if plan.method != "full":
        name = spread_embeddings(model, plan.adapter)
        return SpreadWeights(layers, model.get_submodule(name).weight.numel() * unit if name else 0)
    head = {id(one): one.numel() * unit for one in model.get_output_embeddings().parameters()}
    around = {id(one): one.numel() * unit for one in model.parameters()}
    for _, layer in decoder_layers(model):
        for one in layer.parameters():
            around.pop(id(one), None)
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    after = 0 if tied else sum(head.values())
    return SpreadWeights(layers, sum(around.values()) - sum(head.values()), after)


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
