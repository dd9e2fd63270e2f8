"""Refusal: what the fast path does not take, found out from a plan before anything is loaded."""

from __future__ import annotations

import json
from functools import cache

import torch

from harness.spec.plan import Plan
from harness.train.stream.float8 import decoder_of
from harness.train.stream.linears import UnsupportedLayer
from harness.weights.phantom import phantom_model
from harness.weights.shape import transformers_config


def refusal(plan: Plan) -> str | None:
    """What in ``plan`` the fast path does not know, or None.

    The planned model is built on the meta device, with its quantized layers and adapters, and
    handed to the very decoder that would train it.

    Raises:
        InvalidFile: the model's TOML states no shape, or PEFT refuses the adapter.
    """
    fields = ("method", "quantization", "precision", "adapter", "model", "device")
    asked = plan.model_dump(mode="json", include=set(fields))
    asked["device"] = plan.device.kind
    key = json.dumps(asked, sort_keys=True)
    if key not in _found():
        _found()[key] = _probe(plan)
    return _found()[key]


@cache
def _found() -> dict[str, str | None]:
    """Earlier answers: plans of one request mostly differ in seeds and training settings."""
    return {}


def _probe(plan: Plan) -> str | None:
    depth = int(transformers_config(plan.model).num_hidden_layers)  # windows may differ by layer
    model = phantom_model(plan, depth)
    dtype = getattr(torch, plan.precision.compute)
    try:
        decoder_of(plan)(model, dtype, on_gpu=plan.device.kind == "cuda")
    except UnsupportedLayer as reason:
        return str(reason)
    return None
