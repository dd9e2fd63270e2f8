"""Float8: products of frozen linear layers in eight-bit floats, and what rounding to them means.

Inputs, and gradients of outputs, have a scale for each row (token), weights one for the whole
layer: their values lie close together, and one scale serves both directions of the product. The
format is e4m3 both ways, as Micikevicius et al., "FP8 formats for deep learning" (2022) define it.
Scales are powers of two, so that layers computed together round as each of them alone.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from harness.quantize.layers import linear_layers
from harness.quantize.scheme import Scheme, scheme_of

CODES = torch.float8_e4m3fn
LARGEST = 448.0
SMALLEST = 1e-12  # of a scale's numerator: a row of zeros has codes of zero
SIDE = 16  # the device multiplies matrices whose sides are multiples of it


def rows_to_float8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of the rows of (tokens, channels) ``x``, and their scales: float32 (tokens, 1)."""
    x = x if x.stride(1) == 1 else x.contiguous()
    if x.is_cuda and has_triton():
        from harness.quantize.float8_kernels import quantize_rows

        codes = torch.empty(x.shape, dtype=CODES, device=x.device)
        scales = torch.empty((len(x), 1), dtype=torch.float32, device=x.device)
        quantize_rows(x, codes, scales, LARGEST, SMALLEST)
        return codes, scales
    exact = x.float()
    scales = _fitting(exact.abs().amax(1, keepdim=True))
    return (exact / scales).to(CODES), scales


@cache
def has_triton() -> bool:
    """Whether kernels can be compiled here."""
    return importlib.util.find_spec("triton") is not None


def _fitting(peaks: Tensor) -> Tensor:
    """The least powers of two by which ``peaks`` (float32) must be divided to have codes."""
    bits = (peaks.clamp(min=SMALLEST) / LARGEST).view(torch.int32)
    return ((bits + 0x7FFFFF) & 0x7F800000).view(torch.float32)


def scale_of(*weights: Tensor) -> Tensor:
    """The scale that ``weights`` share: float32, no dimensions."""
    ends = [torch.stack(torch.aminmax(weight)) for weight in weights]
    return _fitting(torch.stack(ends).float().abs().amax())


def weight_to_float8(weight: Tensor, scale: Tensor) -> Tensor:
    """Codes of a weight; to divide by a power of two is exact in bfloat16 too."""
    exact = weight.float() if weight.dtype == torch.float16 else weight
    return (exact / scale.to(exact.dtype)).to(CODES)


def multiply(
    x: tuple[Tensor, Tensor], weight: Tensor, scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """The product x Wᵀ + b in ``dtype``, summed in float32.

    ``x`` are codes and scales of rows, ``weight`` are contiguous codes (outputs, inputs).
    """
    codes, scales = x
    if codes.is_cuda and not any(size % SIDE for size in weight.shape):
        wide = scale.expand(1, len(weight)).contiguous()
        run = torch._scaled_mm  # noqa: SLF001 - torch has no other name for it
        found: Tensor = run(
            codes, weight.t(), scales, wide, bias=bias, out_dtype=dtype, use_fast_accum=True
        )
        return found
    product = ((codes.float() * scales) @ (weight.float() * scale).t()).to(dtype)
    return product if bias is None else product + bias.to(dtype)


class _Product(torch.autograd.Function):
    """The product of a frozen layer, both ways in eight bits."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Rounded) -> Tensor:
        """``x`` is (…, inputs)."""
        ctx.layer = layer
        weight = layer.weight()
        scale = scale_of(weight)
        codes = weight_to_float8(weight, scale).contiguous()
        bias: Any = layer.module.bias
        bias = None if bias is None else bias.to(x.dtype)
        rows = rows_to_float8(x.reshape(-1, x.shape[-1]))
        return multiply(rows, codes, scale, bias, x.dtype).view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        """The gradient of ``x``; the weight has none."""
        weight = ctx.layer.weight()
        scale = scale_of(weight)
        turned = weight_to_float8(weight, scale).t().contiguous()
        rows = rows_to_float8(slope.reshape(-1, slope.shape[-1]))
        made = multiply(rows, turned, scale, None, slope.dtype)
        return made.view(*slope.shape[:-1], len(turned)), None


@dataclass(frozen=True)
class Rounded:
    """What a linear layer does in place of its own forward pass."""

    module: Any
    scheme: Scheme | None

    def weight(self) -> Tensor:
        """The (outputs, inputs) weight, dequantized if need be."""
        if self.scheme is not None:
            return self.scheme.dequantize(self.module)
        weight: Tensor = self.module.weight.detach()
        return weight.t() if isinstance(self.module, Conv1D) else weight

    def __call__(self, x: Tensor) -> Tensor:
        """The product; under autocast inputs are cast as they are there."""
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        with torch.autocast(kind, enabled=False):
            found: Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
            return found


def round_products(model: Any) -> None:
    """Let the frozen linear layers of a base model, all but its head, multiply in eight bits."""
    plain = {id(one) for _, one in linear_layers(model) if not one.weight.requires_grad}
    for module in list(model.modules()):
        scheme = scheme_of(module)
        if scheme is not None or id(module) in plain:
            module.forward = Rounded(module, scheme)


def rounds(layer: nn.Module) -> bool:
    """Whether `round_products` has changed the layer."""
    return isinstance(vars(layer).get("forward"), Rounded)
