"""Spread: the weights of a plan that devices share, and how much of them is whole at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from harness.quantize.scheme import find_scheme
from harness.spec.plan import Plan
from harness.spec.variant import DTYPE_BYTES

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

    def scored(self, *, trained: bool) -> tuple[int, int]:
        """What is whole while scores are taken: around layers, and for a while of layers."""
        if not trained:
            return 0, self.largest
        return self.before + self.after, SCORED * self.largest

    def gathered(self, *, trained: bool) -> int:
        """What is whole for a while on each device, gradients on their way included.

        Of a trained layer that is its gradients and the tensor that they are added up in, while
        the layer before is gathered; embeddings are whole through all of the backward pass.
        """
        if not trained:  # embeddings are let go of before a layer has computed anything
            return self.largest
        return max(2 * self.after, self.before + (GATHERED + 2) * self.largest)


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
