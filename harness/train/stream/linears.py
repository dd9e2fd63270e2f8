"""Linears: frozen linear layers that read the same input, and the LoRA adapters on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness.quantize.scheme import scheme_of
from harness.train.stream import ops

# Up to this summed rank the adapters ride along in the frozen product (see Linears).
RIDING_RANK = 128
# Up to this rank an adapter's products are computed with the activation that it reads.
FUSED_RANK = 64


class UnsupportedLayer(Exception):  # noqa: N818 - a condition, found out at planning
    """The fast path does not take this layer; the message says why."""


class Linears:
    """Several linear layers on one input, computed as one product.

    The output is (tokens, sum of widths). With adapter A_i (r_i × in), B_i (out_i × r_i) and scale
    s_i on layer i, output i is h Wᵢᵀ + bᵢ + sᵢ (h Aᵢᵀ) Bᵢᵀ (Hu et al., 2021). Products run in
    ``dtype``; adapters may be stored in another one, and gradients are kept in theirs.

    A layer with ``riders`` computes [h | h Aᵀ] [W | B]ᵀ in one product, B block-diagonal and
    scaled: the wide output is written once, and the backward product yields the gradient of h Aᵀ
    without another pass over the wide gradient. The numbers are those of separate products, added
    before rounding.
    """

    rides: ClassVar[bool] = True  # whether adapters may ride along
    # Whether products may be computed with the activation they read. For one adapter that was
    # never faster (reports/h100), and 3 to 6 % slower for small models.
    fuses: ClassVar[bool] = False
    drafts: ClassVar[bool] = True  # whether gradients may be written to drafts first

    def __init__(
        self, layers: Sequence[nn.Module], dtype: torch.dtype, *, wide: bool = False
    ) -> None:
        """Take ``layers`` (PEFT LoRA layers or bare ones); ``wide``: more outputs than inputs.

        Raises:
            UnsupportedLayer: a layer neither dense nor 4-bit, or beyond plain LoRA.
        """
        self._dtype = dtype
        self._bases = [_base_layer(layer) for layer in layers]
        self._adapters = [_adapter(layer) for layer in layers]
        self._found = [adapter for adapter in self._adapters if adapter is not None]
        self.widths = [int(base.out_features) for base in self._bases]
        self.inputs = int(self._bases[0].in_features)
        self.ranks = [0 if adapter is None else adapter.rank for adapter in self._adapters]
        self.rank = sum(self.ranks)
        self._wide = wide
        rides = self.rides and wide and self.rank <= RIDING_RANK and self.rank % 8 == 0
        self.riders = self.rank if rides else 0
        self._schemes = [scheme for base in self._bases if (scheme := scheme_of(base))]
        if len(self._schemes) not in (0, len(self._bases)):
            raise UnsupportedLayer("quantized and unquantized layers side by side")
        self._dense = None if self._schemes else self._join_dense()
        self.bias = self._join_biases()
        self.draft: tuple[Tensor, Tensor] | None = None
        self._make_room()

    def _join_dense(self) -> Tensor:
        """One tensor of all unquantized weights (and riders), of which the layers' are views."""
        if len(self._bases) == 1 and not self.riders:
            return torch.as_tensor(self._bases[0].weight.data)
        like = self._bases[0].weight.data
        joined = like.new_zeros((sum(self.widths), self.inputs + self.riders))
        for base, part in zip(self._bases, torch.split(joined, self.widths), strict=True):
            base.weight.data = part[:, : self.inputs].copy_(base.weight.data)
        return torch.as_tensor(joined)

    def _join_biases(self) -> Tensor | None:
        if all(base.bias is None for base in self._bases):
            return None
        device = self._bases[0].weight.device
        parts = [
            torch.zeros(width, device=device) if base.bias is None else base.bias.data
            for base, width in zip(self._bases, self.widths, strict=True)
        ]
        return torch.cat([part.to(self._dtype) for part in parts])

    def _make_room(self) -> None:
        """Room for gradients and for adapters in ``dtype``."""
        if not self._found:
            return
        first = self._found[0].a
        self.put_gradients(first.new_zeros(self.gradient_size))
        self._a = torch.zeros_like(self._a_grad, dtype=self._dtype)
        ranks = [adapter.rank for adapter in self._found]
        self.copies: list[tuple[Tensor, Tensor, float]] = []
        for adapter, copy in zip(self._found, torch.split(self._a, ranks), strict=True):
            self.copies.append((copy, adapter.a.detach(), 1.0))
        self._b_wide = self._room_for_b(first)
        self._b: list[Tensor | None] = []
        for maybe, part in zip(self._adapters, self._blocks(self._b_wide), strict=True):
            self._b.append(None if maybe is None else part)
            if maybe is not None:
                self.copies.append((part, maybe.b.detach(), maybe.scale))

    @property
    def gradient_size(self) -> int:
        """Elements of all gradients of the adapters."""
        return sum(parameter.numel() for parameter in self.trained)

    def put_gradients(self, flat: Tensor) -> None:
        """Keep the adapters' gradients in ``flat`` (gradient_size), each A's side by side."""
        self.draft = None
        sizes = [self.rank * self.inputs, *(adapter.b.numel() for adapter in self._found)]
        first, *others = torch.split(flat, sizes)
        tall = [part.view_as(one.b) for part, one in zip(others, self._found, strict=True)]
        self.keep_gradients(first.view(self.rank, self.inputs), tall)

    def keep_gradients(self, a: Tensor, b: Sequence[Tensor]) -> None:
        """Keep the adapters' gradients in ``a`` (sum of ranks, inputs) and ``b``, one of each."""
        self._a_grad = a
        ranks = [adapter.rank for adapter in self._found]
        for adapter, grad, part in zip(self._found, torch.split(a, ranks), b, strict=True):
            adapter.a.grad, adapter.b.grad = grad, part

    @property
    def scales(self) -> list[float | None]:
        """The scale of each layer's adapter; None without one."""
        return [None if adapter is None else adapter.scale for adapter in self._adapters]

    @property
    def kind(self) -> tuple[object, ...]:
        """What groups have in common whose gradients have the same shapes and scales."""
        return self.inputs, tuple(self.widths), tuple(self.ranks), tuple(self.scales)

    @property
    def draft_size(self) -> int:
        """Elements of the products that the gradients of a micro-batch are read off."""
        return self.rank * (self.inputs + sum(self.widths))

    def _room_for_b(self, like: Tensor) -> Tensor:
        if self.riders and self._dense is not None:
            return self._dense[:, self.inputs :]
        shape = (sum(self.widths), self.rank)
        return torch.zeros(shape, dtype=self._dtype, device=like.device)

    @property
    def tall(self) -> Tensor:
        """B of every adapter, scaled, in the dtype of products: (sum of widths, sum of ranks)."""
        return self._b_wide

    @property
    def trained(self) -> list[nn.Parameter]:
        """The adapters' parameters."""
        return [parameter for adapter in self._found for parameter in (adapter.a, adapter.b)]

    def weight(self, *, riders: bool = True) -> Tensor:
        """Frozen weights (sum of widths, inputs + riders), dequantized if need be."""
        extra = self.riders if riders else 0
        if self._dense is not None:
            return self._dense[:, : self.inputs + extra]
        shape = (sum(self.widths), self.inputs + extra)
        whole = torch.empty(shape, dtype=self._dtype, device=self._bases[0].weight.device)
        self._dequantize_into([part[:, : self.inputs] for part in torch.split(whole, self.widths)])
        if extra:
            whole[:, self.inputs :].copy_(self._b_wide)
        return whole

    def room(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """An input tensor to fill, (tokens, inputs + riders), and its part for the input."""
        whole = like.new_empty((like.shape[0], self.inputs + self.riders))
        return whole, whole[:, : self.inputs]

    @property
    def fused(self) -> bool:
        """Whether kernels compute the adapter's products with what stands beside them."""
        fits = self.fuses and 0 < self.rank <= FUSED_RANK and len(self._bases) == 1
        return fits and ops.fused(self._a)

    def activate(self, x: Tensor, *, gated: bool) -> tuple[Tensor, Tensor | None]:
        """The input of this layer, an activation of ``x``, and its product h Aᵀ."""
        if self.fused:
            return ops.activate(x, self._a, gated=gated)
        h = ops.silu_mul(x) if gated else ops.gelu(x)
        return h, self.low(h)

    def activate_back_(
        self, x: Tensor, slopes: tuple[Tensor, Tensor | None], low: Tensor | None, *, gated: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Turn ``x`` into its gradient; return the activation and h Aᵀ for `collect`.

        ``slopes`` are what `backward` gave, of which the first is used up; ``low`` is h Aᵀ, where
        it is known. No activation is returned where A has its gradient already.
        """
        slope, low_slope = slopes
        if self.fused and low is not None and low_slope is not None:
            self._a_grad.add_(ops.activate_back_(x, slope, low_slope, gated=gated))
            return None, low
        (ops.silu_mul_back_ if gated else ops.gelu_back_)(x, slope)
        return slope, self.low(slope) if low is None else low

    def forward(
        self, h: Tensor, onto: Tensor | None = None, low: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The output (added in place to ``onto``, which holds the bias) and h Aᵀ for `collect`.

        ``h`` comes from `room` where the layer has riders; ``low`` is h Aᵀ, where it is known.
        """
        if self.riders:
            torch.mm(h[:, : self.inputs], self._a.t(), out=h[:, self.inputs :])
            low = h[:, self.inputs :].contiguous()
        out = self.frozen(h, onto)
        if self.riders:
            return out, low
        low = self.low(h) if low is None else low
        if low is not None:
            for b, (part, of_low) in zip(self._b, self._pairs(out, low), strict=True):
                if b is not None:
                    part.addmm_(of_low, b.t())
        return out, low

    def frozen(self, h: Tensor, onto: Tensor | None = None) -> Tensor:
        """The product with the frozen weights, and the bias; added to ``onto``, which has it."""
        weight = self.weight().t()
        if onto is not None:
            return onto.addmm_(h, weight)
        if self.bias is not None:
            return torch.addmm(self.bias, h, weight)
        return h @ weight

    def low(self, h: Tensor) -> Tensor | None:
        """Product h Aᵀ of every adapter, side by side: (tokens, sum of ranks)."""
        return h @ self._a.t() if self.rank else None

    def backward(self, slope: Tensor, *, further: bool = True) -> tuple[Tensor, Tensor | None]:
        """Gradients of the input (if ``further``, else empty) and of h Aᵀ."""
        if self.riders and further:
            both = slope @ self.weight()
            out, riding = both[:, : self.inputs], both[:, self.inputs :]
            return out.addmm_(riding, self._a), riding
        low_slope = self._spread(slope) if self.rank else None
        if not further:
            return slope[:0], low_slope
        if low_slope is None:
            return slope @ self.weight(), None
        if self._dense is not None or slope.shape[1] >= self.inputs:
            return (slope @ self.weight(riders=False)).addmm_(low_slope, self._a), low_slope
        return torch.cat((slope, low_slope), dim=1) @ self._weight_and_a(), low_slope

    def _weight_and_a(self) -> Tensor:
        """W with A below it, to write a wide input gradient once."""
        shape = (sum(self.widths) + self.rank, self.inputs)
        whole = torch.empty(shape, dtype=self._dtype, device=self._a.device)
        sizes = [*self.widths, self.rank]
        *parts, last = torch.split(whole, sizes)
        self._dequantize_into(parts)
        last.copy_(self._a)
        return whole

    def _dequantize_into(self, parts: Sequence[Tensor]) -> None:
        for part, base, scheme in zip(parts, self._bases, self._schemes, strict=True):
            ops.dequantize_into(part, base, scheme)

    def _spread(self, slope: Tensor) -> Tensor:
        spread = slope.new_zeros((slope.shape[0], self.rank))
        for b, (part, of_low) in zip(self._b, self._pairs(slope, spread), strict=True):
            if b is not None:
                torch.mm(part, b, out=of_low)
        return spread

    def collect(
        self, slope: Tensor, h: Tensor | None, low: Tensor | None, low_slope: Tensor | None
    ) -> None:
        """Add this micro-batch's share to the adapters' gradients; no ``h``: A has its own."""
        if low is None or low_slope is None:
            return
        if self.draft is not None:
            if h is not None:
                torch.mm(low_slope.t(), h, out=self.draft[0])
            torch.mm(slope.t(), low, out=self.draft[1])
            return
        if h is not None and self._a_grad.dtype == h.dtype:
            self._a_grad.addmm_(low_slope.t(), h)
        elif h is not None:
            self._a_grad.add_(low_slope.t() @ h)
        product = slope.t() @ low  # blocks off the diagonal are left unused
        for adapter, block in zip(self._adapters, self._blocks(product), strict=True):
            if adapter is not None and adapter.b.grad is not None:
                adapter.b.grad.add_(block, alpha=adapter.scale)

    def _pairs(self, wide: Tensor, low: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each layer's columns of ``wide`` and of ``low`` (none without an adapter)."""
        wides = torch.split(wide, self.widths, dim=1)
        return list(zip(wides, torch.split(low, self.ranks, dim=1), strict=True))

    def _blocks(self, tall: Tensor) -> list[Tensor]:
        """The diagonal blocks (width, rank) of (sum of widths, sum of ranks) ``tall``."""
        rows = torch.split(tall, self.widths)
        return [torch.split(row, self.ranks, dim=1)[at] for at, row in enumerate(rows)]


class _Adapter:
    """One LoRA adapter: parameters and scale."""

    def __init__(self, a: nn.Parameter, b: nn.Parameter, scale: float) -> None:
        self.a, self.b, self.scale = a, b, scale
        self.rank = int(a.shape[0])


def sum_of(
    parts: Sequence[tuple[Linears, Tensor, Tensor | None]], other: Tensor
) -> tuple[Tensor, list[Tensor | None]]:
    """The sum of the outputs of layers and of ``other``, and h Aᵀ of each.

    ``parts`` are layers, the input h of each, and its h Aᵀ where it is known. The first of them
    has the biases of all.
    """
    together = all(layer.fused for layer, *_ in parts)
    out: Tensor | None = None
    lows: list[Tensor | None] = []
    for layer, h, known in parts:
        if together:
            out, low = layer.frozen(h, out), layer.low(h) if known is None else known
        else:
            out, low = layer.forward(h, out, known)
        lows.append(low)
    assert out is not None  # noqa: S101
    if not together:
        return out.add_(other), lows
    low, b = _side_by_side(lows), _side_by_side([layer.tall for layer, *_ in parts])
    return ops.add_low_(out, low, b, other), lows


def _side_by_side(parts: Sequence[Tensor | None]) -> Tensor:
    known = [part for part in parts if part is not None]
    return known[0] if len(known) == 1 else torch.cat(known, dim=-1)


def refresh(groups: Sequence[Linears]) -> None:
    """Take the adapters' present values, scaled and in the dtype of the products."""
    copies = [copy for group in groups if group.rank for copy in group.copies]
    for alike in (True, False):  # tensors that lie alike are copied by few kernels
        chosen = [one for one in copies if (one[0].stride() == one[1].stride()) is alike]
        if chosen:
            targets, sources, scales = (list(column) for column in zip(*chosen, strict=True))
            torch._foreach_copy_(targets, torch._foreach_mul(sources, scales))  # noqa: SLF001


def _base_layer(layer: Any) -> Any:
    base: Any = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
    if type(base) is nn.Linear:
        return base
    scheme = scheme_of(base)
    if scheme is not None and scheme.plain_product:
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
