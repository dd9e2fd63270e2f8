"""Phantom: the planned model on the meta device, with the modules it will be trained with."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.quantize.scheme import Target, find_scheme
from harness.spec.methods import held_still, plainly_initialised
from harness.spec.plan import Plan
from harness.spec.variant import Adapter
from harness.weights.adapter import hold_still
from harness.weights.shape import transformers_config, wrapped_shapes

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class PhantomOf:
    """A plan, equal to others with the same phantom: seeds and learning rates do not matter.

    Neither does how an adapter is initialised, where that does not change its shapes.
    """

    written: str
    plan: Plan = field(compare=False)

    @classmethod
    def of(cls, plan: Plan) -> PhantomOf:
        """The plan, with what its phantom depends on written down."""
        parts = plan.model_dump(mode="json", include={"method", "model", "quantization"})
        parts["dtypes"] = [plan.stored, plan.precision.model_dump(mode="json")]
        parts["still"] = held_still(plan.training.optimizer)
        adapter = plan.adapter and plainly_initialised(plan.adapter).model_dump(mode="json")
        return cls(json.dumps({**parts, "adapter": adapter}, sort_keys=True), plan)


def phantom_model(plan: Plan, layers: int) -> nn.Module:
    """The model of ``plan``, ``layers`` deep, as :mod:`harness.weights` would load and adapt it.

    Quantized layers are their scheme's own and adapters are PEFT's own, so that a forward pass
    makes the very tensors of a real one. Nothing has memory.

    Raises:
        Unpredicted: the adapter's shapes depend on the weights.
    """
    build = partial(_base, plan, layers)
    return build() if plan.adapter is None else _adapted(build, plan, plan.adapter)


def _base(plan: Plan, layers: int) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    config = transformers_config(plan.model)
    config.num_hidden_layers = layers
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, plan.stored))
        _quantize(model, plan)
    model.requires_grad_(plan.method == "full")
    return model


def _adapted(build: Callable[[], nn.Module], plan: Plan, adapter: Adapter) -> nn.Module:
    import torch

    model = wrapped_shapes(build, adapter)
    dtype = getattr(torch, plan.precision.trainable)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    hold_still(model, held_still(plan.training.optimizer))
    return model


def _quantize(model: Any, plan: Plan) -> None:
    """Put the scheme's layers in place of those that it quantizes."""
    import torch

    from harness.quantize.layers import as_linear, taken_layers

    scheme = find_scheme(plan.quantization)
    target = Target(plan.quantization, getattr(torch, plan.precision.compute), "meta")
    for name, module in taken_layers(model, scheme):
        model.set_submodule(name, scheme.phantom(as_linear(module), target))
    scheme.mark(model)
