"""Norms: root-mean-square norms of a model as one kernel, where that is what they compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

PROBE_ROWS = 4
TOLERANCE = 1e-5


@contextmanager
def fused_norms(model: nn.Module) -> Iterator[int]:
    """Let norms that are `torch.nn.functional.rms_norm` be that; yields how many are.

    Models write theirs out in half a dozen operations and more for the backward pass. Whether a
    module is such a norm is found out by asking it: some add one to the weight, or divide by
    something else, and those stay as they are.
    """
    found = [module for module in model.modules() if _is_plain(module)]
    for module in found:
        module.forward = partial(_normed, module)
    try:
        yield len(found)
    finally:
        for module in found:
            del module.forward


def _is_plain(module: Any) -> bool:
    """Whether the module does with numbers what one kernel does."""
    weight = getattr(module, "weight", None)
    if not type(module).__name__.endswith("RMSNorm") or _eps(module) is None:
        return False
    if not isinstance(weight, Tensor) or weight.ndim != 1 or "forward" in vars(module):
        return False
    numbers = torch.Generator(device="cpu").manual_seed(0)
    x = torch.randn(PROBE_ROWS, len(weight), generator=numbers).to(weight.device)
    with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
        theirs, ours = module(x), _normed(module, x)
    alike = torch.allclose(theirs, ours, rtol=TOLERANCE, atol=TOLERANCE)
    return theirs.dtype == ours.dtype and bool(alike)


def _eps(module: Any) -> float | None:
    found = getattr(module, "variance_epsilon", None)
    return getattr(module, "eps", None) if found is None else found


def _normed(module: Any, x: Tensor) -> Tensor:
    """The norm in the wider of both dtypes, as the written-out one gives it."""
    dtype = torch.promote_types(x.dtype, module.weight.dtype)
    weight = module.weight.to(dtype)
    with torch.autocast(x.device.type, enabled=False):
        return functional.rms_norm(x.to(dtype), (len(weight),), weight, _eps(module))
