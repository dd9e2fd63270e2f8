"""Linears: frozen linear layers under the LoRA adapters of several plans at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from harness.train.stream.linears import RIDING_RANK, Linears

# Tokens of a plan, as a multiple of the inputs, from which copies of the weights pay.
RIDING_TOKENS = 2


class TogetherLinears(Linears):
    """Linear layers on one input whose tokens are those of one plan after those of another.

    Of (plans · tokens) rows the frozen product is one; adapter k is for the k-th part of the rows
    only, by a batched product. Where that takes less time, the weights are copied for each plan
    and its adapters ride along (see `Linears`). Which layers have an adapter is read off the
    model; what the adapters hold is bound later, from a
    :class:`harness.train.together.bank.Bank`.
    """

    rides: ClassVar[bool] = False  # whether they do is decided anew for each micro-batch
    fuses: ClassVar[bool] = True
    drafts: ClassVar[bool] = False  # gradients are the bank's

    def _make_room(self) -> None:
        """Room is made by the bank."""

    @property
    def adapted(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """A and B of each layer that has an adapter."""
        return [(adapter.a, adapter.b) for adapter in self._found]

    def shapes(self, rank: int) -> list[tuple[int, int]]:
        """Shapes of a plan's adapters of ``rank``: all A in one, then B of each adapted layer."""
        if not self._found:
            return []
        tall = [(int(adapter.b.shape[0]), rank) for adapter in self._found]
        return [(len(self._found) * rank, self.inputs), *tall]

    def bind(self, rank: int, copies: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Take adapters, in the dtype of products and with B scaled, and room for gradients.

        Both are as `shapes` says, with a dimension for the plans before.
        """
        self.ranks = [0 if adapter is None else rank for adapter in self._adapters]
        self.rank = sum(self.ranks)
        if not self.rank:
            return
        self._a, *tall = copies
        self._a_grad, *tall_gradients = gradients
        pairs = iter(zip(tall, tall_gradients, strict=True))
        self._b_and_gradient = [None if one is None else next(pairs) for one in self._adapters]

    @property
    def tall(self) -> Tensor:
        """B of the adapter of the only layer: (plans, width, rank)."""
        ((b, _),) = [pair for pair in self._b_and_gradient if pair is not None]
        return b

    def room(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """As `Linears.room`.

        Copying the weights moves 2 · inputs numbers an output, adding adapters to the output 2 a
        token, and as much again on the way back.
        """
        each = len(like) // len(self._a) if self.rank else 0
        fits = self._wide and self.rank <= RIDING_RANK and self.rank % 8 == 0
        self.riders = self.rank if fits and each > RIDING_TOKENS * self.inputs else 0
        return super().room(like)

    def _weights_and_b(self) -> Tensor:
        """The weights with B of each plan beside them: (plans, sum of widths, inputs + ranks)."""
        weight = self.weight(riders=False)
        shape = (len(self._a), len(weight), self.inputs + self.rank)
        whole = weight.new_zeros(shape)
        whole[:, :, : self.inputs] = weight
        parts = torch.split(whole[:, :, self.inputs :], self.widths, dim=1)
        for at, (part, pair) in enumerate(zip(parts, self._b_and_gradient, strict=True)):
            if pair is not None:
                torch.split(part, self.ranks, dim=2)[at].copy_(pair[0])
        return whole

    def _apart(self, x: Tensor) -> Tensor:
        """Rows plan by plan: (plans, tokens, columns)."""
        return x.view(len(self._a), -1, x.shape[1])

    def _blocks_of(self, wide: Tensor, low: Tensor) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """For each adapted layer: its columns of ``wide`` and of ``low``, B and B's gradient."""
        parts = zip(
            torch.split(wide, self.widths, dim=2),
            torch.split(low, self.ranks, dim=2),
            self._b_and_gradient,
            strict=True,
        )
        return [(of_wide, of_low, *pair) for of_wide, of_low, pair in parts if pair is not None]

    def forward(
        self, h: Tensor, onto: Tensor | None = None, low: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """As `Linears.forward`; h Aᵀ is (plans, tokens, ranks)."""
        if self.riders:
            return self._forward_riding(self._apart(h))
        out = self.frozen(h, onto)
        low = self.low(h) if low is None else low
        if low is not None:
            for part, of_low, b, _ in self._blocks_of(self._apart(out), low):
                part.baddbmm_(of_low, b.transpose(1, 2))
        return out, low

    def _forward_riding(self, h: Tensor) -> tuple[Tensor, Tensor]:
        low = torch.bmm(h[:, :, : self.inputs], self._a.transpose(1, 2))
        h[:, :, self.inputs :] = low
        whole = self._weights_and_b().transpose(1, 2)
        out = torch.bmm(h, whole) if self.bias is None else torch.baddbmm(self.bias, h, whole)
        return out.flatten(0, 1), low

    def low(self, h: Tensor) -> Tensor | None:
        """Product h Aᵀ of every adapter, side by side: (plans, tokens, ranks)."""
        if not self.rank:
            return None
        return torch.bmm(self._apart(h), self._a.transpose(1, 2))

    def backward(self, slope: Tensor, *, further: bool = True) -> tuple[Tensor, Tensor | None]:
        """Gradients of the input (if ``further``, else empty) and of h Aᵀ."""
        low_slope = None
        if self.riders and further:
            both = torch.bmm(self._apart(slope), self._weights_and_b())
            out, riding = both[:, :, : self.inputs], both[:, :, self.inputs :].contiguous()
            return out.baddbmm_(riding, self._a).flatten(0, 1), riding
        if self.rank:
            apart = self._apart(slope)
            found = self._blocks_of(apart, apart.new_empty((*apart.shape[:2], self.rank)))
            low_slope = torch.cat([torch.bmm(part, b) for part, _, b, _ in found], dim=2)
        if not further:
            return slope[:0], low_slope
        out = slope @ self.weight(riders=False)
        if low_slope is not None:
            self._apart(out).baddbmm_(low_slope, self._a)
        return out, low_slope

    def collect(
        self, slope: Tensor, h: Tensor | None, low: Tensor | None, low_slope: Tensor | None
    ) -> None:
        """Add this micro-batch's share to the gradients of A and, not yet scaled, of B."""
        if low is None or low_slope is None:
            return
        if h is not None:
            self._a_grad.add_(torch.bmm(low_slope.transpose(1, 2), self._apart(h)))
        for part, of_low, _, gradient in self._blocks_of(self._apart(slope), low):
            gradient.add_(torch.bmm(part.transpose(1, 2), of_low))
