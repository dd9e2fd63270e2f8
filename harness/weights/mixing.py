"""Mixing: float32 adapters on 16-bit weights, where PEFT's own forward pass cannot mix the two."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def let_dtypes_mix(model: Any, dtype: torch.dtype) -> bool:
    """Run ``model`` under autocast to ``dtype`` if it fails without; whether that was needed.

    Training is always under autocast where adapters are float32 and weights are not. Scoring and
    answering are not, and some adapters (trained norms, VeRA, DeLoRA, embeddings) then multiply
    float32 by 16-bit weights, which torch refuses. Two tokens tell which do.
    """
    if dtype == torch.float32 or _takes_two_tokens(model):
        return False
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    body = getattr(base, base.base_model_prefix, base)
    for module in dict.fromkeys((body, base.get_output_embeddings())):
        _put_under_autocast(module, dtype)
    return True


@torch.no_grad()
def _takes_two_tokens(model: Any) -> bool:
    training = model.training
    model.eval()
    try:
        model(input_ids=torch.zeros((1, 2), dtype=torch.long, device=model.device))
    except RuntimeError as error:
        if "dtype" in str(error):
            return False
        raise
    finally:
        model.train(training)
    return True


def _put_under_autocast(module: nn.Module, dtype: torch.dtype) -> None:
    """Every call of ``module`` runs under autocast, whoever calls it."""
    device = next(module.parameters()).device.type
    opened: list[torch.autocast] = []

    def enter(*_: Any) -> None:
        opened.append(torch.autocast(device, dtype, cache_enabled=False))
        opened[-1].__enter__()  # type: ignore[no-untyped-call]

    def leave(*_: Any) -> None:
        opened.pop().__exit__(None, None, None)

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave, always_call=True)
