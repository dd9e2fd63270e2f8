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


class Norms:
    """The norms of a model that are `torch.nn.functional.rms_norm`.

    Models write theirs out in half a dozen operations and more for the backward pass. Whether a
    module is such a norm is found out by asking one of its kind: some add one to the weight, or
    divide by something else, and those stay as they are.
    """

    def __init__(self, model: nn.Module) -> None:
        """Find them."""
        known: dict[Any, bool] = {}
        self._found = [module for module in model.modules() if _is_plain(module, known)]

    @contextmanager
    def used(self) -> Iterator[int]:
        """While this is open, each is one kernel; yields how many are."""
        for module in self._found:
            vars(module)["forward"] = partial(_normed, module)
        try:
            yield len(self._found)
        finally:
            for module in self._found:
                del vars(module)["forward"]


def fused_norms(model: nn.Module) -> Any:
    """A context in which the plain norms of a model are one kernel each; yields how many are."""
    return Norms(model).used()


def _is_plain(module: Any, known: dict[Any, bool]) -> bool:
    """Whether the module does with numbers what one kernel does, as ``known`` of its kind."""
    weight = getattr(module, "weight", None)
    if not type(module).__name__.endswith("RMSNorm") or _eps(module) is None:
        return False
    if not isinstance(weight, Tensor) or weight.ndim != 1 or "forward" in vars(module):
        return False
    own = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    kind = type(module), repr(own), weight.dtype, weight.device, len(weight)
    if kind not in known:
        known[kind] = _asked(module, weight)
    return known[kind]


def _asked(module: Any, weight: Tensor) -> bool:
    """Whether it gives for some numbers what one kernel gives."""
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
