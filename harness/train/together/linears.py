"""Linears: frozen linear layers under the LoRA adapters of several plans at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from harness.train.stream.linears import Linears


class TogetherLinears(Linears):
    """Linear layers on one input whose tokens are those of one plan after those of another.

    Of (plans · tokens) rows the frozen product is one; adapter k is for the k-th part of the rows
    only, by a batched product. Which layers have an adapter is read off the model; what the
    adapters hold is bound later, from a :class:`harness.train.together.bank.Bank`.
    """

    rides: ClassVar[bool] = False

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

    def forward(self, h: Tensor, onto: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """As `Linears.forward`; h Aᵀ is (plans, tokens, ranks)."""
        out, low = self._frozen(h, onto), self.low(h)
        if low is not None:
            for part, of_low, b, _ in self._blocks_of(self._apart(out), low):
                part.baddbmm_(of_low, b.transpose(1, 2))
        return out, low

    def low(self, h: Tensor) -> Tensor | None:
        """Product h Aᵀ of every adapter, side by side: (plans, tokens, ranks)."""
        if not self.rank:
            return None
        return torch.bmm(self._apart(h), self._a.transpose(1, 2))

    def backward(self, slope: Tensor, *, further: bool = True) -> tuple[Tensor, Tensor | None]:
        """Gradients of the input (if ``further``, else empty) and of h Aᵀ."""
        low_slope = None
        if self.rank:
            apart = self._apart(slope)
            found = self._blocks_of(apart, apart.new_empty((*apart.shape[:2], self.rank)))
            low_slope = torch.cat([torch.bmm(part, b) for part, _, b, _ in found], dim=2)
        if not further:
            return slope[:0], low_slope
        out = slope @ self.weight()
        if low_slope is not None:
            self._apart(out).baddbmm_(low_slope, self._a)
        return out, low_slope

    def collect(
        self, slope: Tensor, h: Tensor, low: Tensor | None, low_slope: Tensor | None
    ) -> None:
        """Add this micro-batch's share to the gradients of A and, not yet scaled, of B."""
        if low is None or low_slope is None:
            return
        self._a_grad.add_(torch.bmm(low_slope.transpose(1, 2), self._apart(h)))
        for part, of_low, _, gradient in self._blocks_of(self._apart(slope), low):
            gradient.add_(torch.bmm(part.transpose(1, 2), of_low))
