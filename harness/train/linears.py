"""Linears: frozen linear layers that read the same input, and the LoRA adapters on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.train import ops


class UnsupportedLayer(Exception):  # noqa: N818 - a condition that chooses the plain path
    """The fast path does not take this layer; the message says why."""


class Linears:
    """Several linear layers on one input, computed as one product.

    The output is (tokens, sum of widths). With adapter A_i (r_i × in), B_i (out_i × r_i) and scale
    s_i on layer i, output i is h Wᵢᵀ + bᵢ + sᵢ (h Aᵢᵀ) Bᵢᵀ (Hu et al., 2021). Products run in
    ``dtype``; adapters may be stored in another one, and gradients are kept in theirs.
    """

    def __init__(self, layers: Sequence[nn.Module], dtype: torch.dtype) -> None:
        """Take ``layers`` (PEFT LoRA layers or bare ones).

        Raises:
            UnsupportedLayer: a layer that is neither dense nor 4-bit, or beyond plain LoRA.
        """
        self._dtype = dtype
        self._bases = [_base_layer(layer) for layer in layers]
        self._adapters = [_adapter(layer) for layer in layers]
        self.widths = [int(base.out_features) for base in self._bases]
        self._inputs = int(self._bases[0].in_features)
        self._packed = [
            base if hasattr(base.weight, "quant_state") else None for base in self._bases
        ]
        self._dense = None if all(self._packed) else self._join_dense()
        self._bias = self._join_biases()
        self._gradients()

    def _join_dense(self) -> Tensor:
        """One tensor of all unquantized weights, of which the layers' own become views."""
        if any(self._packed):
            raise UnsupportedLayer("quantized and unquantized layers side by side")
        if len(self._bases) == 1:
            return torch.as_tensor(self._bases[0].weight.data)
        joined = torch.cat([base.weight.data for base in self._bases])
        for base, part in zip(self._bases, torch.split(joined, self.widths), strict=True):
            base.weight.data = part
        return joined

    def _join_biases(self) -> Tensor | None:
        if all(base.bias is None for base in self._bases):
            return None
        parts = [
            base.bias.data if base.bias is not None else base.weight.new_zeros(width)
            for base, width in zip(self._bases, self.widths, strict=True)
        ]
        return torch.cat(parts).to(self._dtype)

    def _gradients(self) -> None:
        """One gradient tensor for all A's; each parameter's ``grad`` is a view of it."""
        found = [adapter for adapter in self._adapters if adapter is not None]
        self.rank = sum(adapter.rank for adapter in found)
        if not found:
            return
        first = found[0].a
        self._a_grad = first.new_zeros((self.rank, self._inputs))
        for adapter, part in zip(
            found, torch.split(self._a_grad, [x.rank for x in found]), strict=True
        ):
            adapter.a.grad = part
            adapter.b.grad = torch.zeros_like(adapter.b)

    @property
    def trained(self) -> list[nn.Parameter]:
        """The adapters' parameters."""
        return [
            p for adapter in self._adapters if adapter is not None for p in (adapter.a, adapter.b)
        ]

    def refresh(self) -> None:
        """Take the adapters' present values, in the dtype of the products. Call once a step."""
        found = [adapter for adapter in self._adapters if adapter is not None]
        if found:
            self._a = torch.cat([adapter.a.detach() for adapter in found]).to(self._dtype)
        self._b = [
            None if adapter is None else (adapter.b.detach() * adapter.scale).to(self._dtype)
            for adapter in self._adapters
        ]

    def weight(self) -> Tensor:
        """The frozen weights (sum of widths, inputs), dequantized if need be."""
        if self._dense is not None:
            return self._dense
        shape = (sum(self.widths), self._inputs)
        whole = torch.empty(shape, dtype=self._dtype, device=self._bases[0].weight.device)
        for base, part in zip(self._bases, torch.split(whole, self.widths), strict=True):
            ops.dequantize_into(part, base.weight)
        return whole

    def forward(self, h: Tensor, onto: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The output (added in place to ``onto`` if given) and h Aᵀ, which `collect` needs."""
        weight = self.weight().t()
        if onto is not None:
            out = onto if self._bias is None else onto.add_(self._bias)
            out.addmm_(h, weight)
        elif self._bias is not None:
            out = torch.addmm(self._bias, h, weight)
        else:
            out = h @ weight
        low = self.compress(h)
        if low is not None:
            for b, (part, of_low) in zip(self._b, self._slices(out, low), strict=True):
                if b is not None:
                    part.addmm_(of_low, b.t())
        return out, low

    def compress(self, h: Tensor) -> Tensor | None:
        """Product h Aᵀ of every adapter, side by side: (tokens, sum of ranks)."""
        return h @ self._a.t() if self.rank else None

    def spread(self, slope: Tensor) -> Tensor | None:
        """sᵢ ∂ᵢ Bᵢ of every adapter, given ``slope`` of the output: the gradient of h Aᵀ."""
        if not self.rank:
            return None
        low = slope.new_empty((slope.shape[0], self.rank))
        for b, (part, of_low) in zip(self._b, self._slices(slope, low), strict=True):
            if b is not None:
                torch.mm(part, b, out=of_low)
        return low

    def input_slope(self, slope: Tensor, low_slope: Tensor | None) -> Tensor:
        """Gradient of the input."""
        out = slope @ self.weight()
        if low_slope is not None:
            out.addmm_(low_slope, self._a)
        return out

    def collect(
        self, slope: Tensor, h: Tensor, low: Tensor | None, low_slope: Tensor | None
    ) -> None:
        """Add this micro-batch's share to the adapters' gradients."""
        if low is None or low_slope is None:
            return
        _add_product(self._a_grad, low_slope.t(), h)
        for adapter, (part, of_low) in zip(self._adapters, self._slices(slope, low), strict=True):
            if adapter is not None and adapter.b.grad is not None:
                _add_product(adapter.b.grad, part.t(), of_low, adapter.scale)

    def _slices(self, wide: Tensor, low: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each layer's columns of ``wide`` and of ``low`` (none without an adapter)."""
        ranks = [0 if adapter is None else adapter.rank for adapter in self._adapters]
        return list(
            zip(torch.split(wide, self.widths, dim=1), torch.split(low, ranks, dim=1), strict=True)
        )


def _add_product(total: Tensor, left: Tensor, right: Tensor, scale: float = 1.0) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right, alpha=scale)
    else:
        total.add_(left @ right, alpha=scale)


class _Adapter:
    """One LoRA adapter: parameters and scale."""

    def __init__(self, a: nn.Parameter, b: nn.Parameter, scale: float) -> None:
        self.a, self.b, self.scale = a, b, scale
        self.rank = int(a.shape[0])


def _base_layer(layer: Any) -> Any:
    base: Any = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
    if type(base) is nn.Linear:
        return base
    if type(base).__name__ == "Linear4bit" and getattr(base.weight, "quant_state", None):
        return base
    raise UnsupportedLayer(f"a {type(base).__name__} layer")


def _adapter(layer: Any) -> _Adapter | None:
    """The one active LoRA adapter of a PEFT layer; None on a bare layer."""
    if not hasattr(layer, "lora_A"):
        if hasattr(layer, "base_layer"):
            raise UnsupportedLayer(f"a {type(layer).__name__} adapter")
        return None
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if len(names) != 1 or layer.merged or layer.disable_adapters:
        raise UnsupportedLayer("not exactly one active adapter")
    name = names[0]
    if layer.lora_variant.get(name) is not None or layer.lora_bias.get(name):
        raise UnsupportedLayer("a LoRA variant such as DoRA")
    if getattr(layer.lora_dropout[name], "p", 0.0):
        raise UnsupportedLayer("adapter dropout")
    return _Adapter(layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name])
