"""Offload: the inputs of checkpointed layers wait in host memory for the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from harness.train.rehearsal import RECOMPUTATION


@dataclass(frozen=True)
class _Waiting:
    """What a tensor was on its device, and its numbers on the host; shapes alone have none."""

    like: tuple[torch.Size, torch.dtype, torch.device]
    numbers: Tensor | None


def keep_inputs_on_host(model: nn.Module) -> None:
    """Let every layer of ``model`` that is checkpointed now leave its input to the host.

    Copies are queued on the stream that computes, so a tensor's memory is used again only after it
    has left, and page-locked memory is used again by torch's own allocator.
    """
    for module in model.modules():
        function = module.__dict__.get(RECOMPUTATION)
        if function is not None and not isinstance(function, _InputsOnHost):
            setattr(module, RECOMPUTATION, _InputsOnHost(function))


@dataclass(frozen=True)
class _InputsOnHost:
    """A checkpointing function; inside the layer it has hooks of its own for what is saved."""

    function: Callable[..., Any]

    def __call__(self, layer: Any, *inputs: Any, **others: Any) -> Any:
        """Call the layer; only its inputs are kept, and they leave."""
        with saved_tensors_hooks(_leave, _come_back):
            return self.function(layer, *inputs, **others)


def _leave(tensor: Tensor) -> _Waiting:
    like = (tensor.shape, tensor.dtype, tensor.device)
    if tensor.is_meta:
        return _Waiting(like, None)
    room = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return _Waiting(like, room.copy_(tensor, non_blocking=True))


def _come_back(waiting: _Waiting) -> Tensor:
    shape, dtype, device = waiting.like
    back = torch.empty(shape, dtype=dtype, device=device)
    return back if waiting.numbers is None else back.copy_(waiting.numbers, non_blocking=True)
