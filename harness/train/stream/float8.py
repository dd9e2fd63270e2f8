"""Float8: the fast path with frozen products in eight-bit floats; adapters stay in 16 bits."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from harness.quantize.float8 import (
    CODES,
    LARGEST,
    multiply,
    rows_to_float8,
    scale_of,
    weight_to_float8,
)
from harness.spec.plan import Plan
from harness.train.stream.decoder import Decoder
from harness.train.stream.linears import Linears
from harness.train.stream.ops import fits_kernel


class Float8Linears(Linears):
    """Linear layers on one input; their frozen weights share one scale.

    Weights are rounded anew from what is stored whenever they are needed, so that no second copy
    of the model is kept.
    """

    rides: ClassVar[bool] = False

    @cached_property
    def _scale(self) -> Tensor:
        if self._dense is not None:
            return scale_of(self._dense)
        pairs = zip(self._schemes, self._bases, strict=True)
        return scale_of(*(scheme.dequantize(base) for scheme, base in pairs))

    @cached_property
    def _factor(self) -> Tensor:
        return (1.0 / self._scale).reshape(1)

    def frozen(self, h: Tensor, onto: Tensor | None = None) -> Tensor:
        """The product with the frozen weights, and the bias; added in place to ``onto``."""
        rows = rows_to_float8(h)
        bias = self.bias if onto is None else None
        out = multiply(rows, self._codes(turned=False), self._scale, bias, self._dtype)
        return out if onto is None else onto.add_(out)

    def backward(self, slope: Tensor, *, further: bool = True) -> tuple[Tensor, Tensor | None]:
        """Gradients of the input (if ``further``, else empty) and of h Aᵀ."""
        low_slope = self._spread(slope) if self.rank else None
        if not further:
            return slope[:0], low_slope
        rows = rows_to_float8(slope)
        out = multiply(rows, self._codes(turned=True), self._scale, None, self._dtype)
        return out if low_slope is None else out.addmm_(low_slope, self._a), low_slope

    def _codes(self, *, turned: bool) -> Tensor:
        """Codes of all weights: (sum of widths, inputs), or the transpose of it."""
        shape = (sum(self.widths), self.inputs)
        device = self._bases[0].weight.device
        out = torch.empty(shape[::-1] if turned else shape, dtype=CODES, device=device)
        if self._dense is not None:
            self._round(out, self._dense, turned=turned)
            return out
        parts = torch.split(out, self.widths, dim=1 if turned else 0)
        for part, base, scheme in zip(parts, self._bases, self._schemes, strict=True):
            state = getattr(base.weight, "quant_state", None)
            if out.is_cuda and fits_kernel(state, self.inputs):
                from harness.quantize.float8_kernels import dequantize_nf4

                dequantize_nf4(part, base.weight.data, state, self._factor, turned=turned)
            else:
                self._round(part, scheme.dequantize(base), turned=turned)
        return out

    def _round(self, out: Tensor, weight: Tensor, *, turned: bool) -> None:
        if out.is_cuda:
            from harness.quantize.float8_kernels import cast

            cast(out, weight, self._factor, LARGEST, turned=turned)
            return
        codes = weight_to_float8(weight, self._scale)
        out.copy_(codes.t() if turned else codes)


class Float8Decoder(Decoder):
    """A decoder whose frozen layers multiply in eight-bit floats."""

    linears: ClassVar[type[Linears]] = Float8Linears


def decoder_of(plan: Plan) -> type[Decoder]:
    """The kind of decoder that trains ``plan``."""
    return Float8Decoder if plan.precision.products == "float8" else Decoder
