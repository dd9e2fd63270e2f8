"""Layers: which layers of a model can be quantized, and how they are replaced."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

if TYPE_CHECKING:
    from harness.quantize.scheme import Scheme, Target


def linear_layers(model: Any) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of every linear layer that transformers would let be quantized.

    Left out are the output head, weights tied to the embedding, and what the architecture keeps
    in float32.
    """
    kept = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)  # noqa: SLF001
    for name, module in model.named_modules():
        if is_linear(module) and should_convert_module(name, kept):
            yield name, module


def taken_layers(model: Any, scheme: Scheme) -> list[tuple[str, nn.Module]]:
    """Those of :func:`linear_layers` that ``scheme`` quantizes."""
    return [(name, module) for name, module in linear_layers(model) if scheme.takes(module)]


def is_linear(module: nn.Module) -> bool:
    """Whether ``module`` computes x Wᵀ + b and nothing else.

    That is torch's linear layer, GPT-2's (whose weight lies transposed), and subclasses of
    torch's that compute the same, such as Falcon's. Others, such as routers that choose experts,
    would lose what they do beside the product, and layers that are quantized already are none.
    """
    kind: Any = type(module)
    if not isinstance(module, nn.Linear | Conv1D) or type(module.weight) is not nn.Parameter:
        return False
    return kind in (nn.Linear, Conv1D) or _computes_a_plain_product(kind)


@lru_cache
def _computes_a_plain_product(kind: type[nn.Linear]) -> bool:
    """Asked of a small layer of that class, since a subclass may do anything in its forward."""
    try:
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            layer = kind(3, 2)
            x = torch.rand(4, 3)
            expected = functional.linear(x, layer.weight, layer.bias)
            found = layer(x)
    except (TypeError, ValueError, RuntimeError, AttributeError, AssertionError, LookupError):
        return False
    return isinstance(found, Tensor) and torch.allclose(found, expected, atol=1e-5)


def weight_shape(module: nn.Module) -> tuple[int, int]:
    """Outputs and inputs of a linear layer."""
    rows, columns = module.weight.shape  # type: ignore[misc]
    return (columns, rows) if isinstance(module, Conv1D) else (rows, columns)


def as_linear(module: Any, device: str | None = None) -> nn.Linear:
    """A linear layer of ``module``'s weight and bias, moved to ``device``."""
    weight = module.weight.data.to(device)
    weight = weight.t().contiguous() if isinstance(module, Conv1D) else weight
    rows, columns = weight.shape
    with torch.device("meta"):
        linear = nn.Linear(columns, rows, bias=module.bias is not None, dtype=weight.dtype)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if module.bias is not None:
        linear.bias = nn.Parameter(module.bias.data.to(device), requires_grad=False)
    return linear


def replace_layers(model: Any, scheme: Scheme, target: Target) -> None:
    """Quantize the layers of a loaded model one by one, on the target's device."""
    for name, module in taken_layers(model, scheme):
        model.set_submodule(name, scheme.quantize(as_linear(module, target.device), target))
