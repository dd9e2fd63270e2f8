"""Refusal: what the fast path does not take, found out from a plan before anything is loaded."""

from __future__ import annotations

from functools import lru_cache

import torch

from harness.spec.plan import Plan
from harness.train.stream.float8 import decoder_of
from harness.train.stream.linears import UnsupportedLayer
from harness.weights.depth import SHALLOW, layers_alike
from harness.weights.phantom import PhantomOf, phantom_model
from harness.weights.shape import transformers_config


def refusal(plan: Plan) -> str | None:
    """What in ``plan`` the fast path does not know, or None.

    The planned model is built on the meta device, with its quantized layers and adapters, and
    handed to the very decoder that would train it.

    Raises:
        InvalidFile: the model's TOML states no shape, or PEFT refuses the adapter.
    """
    return _probe(PhantomOf.of(plan), plan.device.kind)


@lru_cache(maxsize=256)
def _probe(asked: PhantomOf, device: str) -> str | None:
    """Plans of one request mostly differ in seeds and training settings."""
    plan = asked.plan
    if layers_alike(plan.model, plan.adapter):
        depth = max(SHALLOW)
    else:
        text = transformers_config(plan.model).get_text_config()
        depth = int(text.num_hidden_layers)  # windows differ by layer
    model = phantom_model(plan, depth)
    dtype = getattr(torch, plan.precision.compute)
    try:
        decoder_of(plan)(model, dtype, on_gpu=device == "cuda")
    except UnsupportedLayer as reason:
        return str(reason)
    return None
