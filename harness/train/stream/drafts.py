"""Drafts: the gradients of one micro-batch in the dtype of products, added to the others at once.

Each layer's products write to places of their own, and layers of one kind lie behind each other, so
that a whole model's gradients are added by a few kernels instead of a few for each layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from harness.train.stream.footprint import DRAFT_BYTES
from harness.train.stream.linears import Linears


def make_drafts(groups: Sequence[Linears], dtype: torch.dtype) -> Drafts | None:
    """Drafts for ``groups``; None where they have none or would take much memory."""
    takers = [group for group in groups if group.rank and group.drafts]
    size = sum(group.draft_size for group in takers) * dtype.itemsize
    return Drafts(takers, dtype) if takers and size <= DRAFT_BYTES else None


class Drafts:
    """Room for drafts and for the sums of gradients (``gradients``, one dimension) of layers."""

    def __init__(self, groups: Sequence[Linears], dtype: torch.dtype) -> None:
        """Give ``groups`` their places."""
        first = groups[0].trained[0]
        size = sum(group.gradient_size for group in groups)
        self.gradients = first.new_zeros(size, requires_grad=False)
        size = sum(group.draft_size for group in groups)
        self._drafts = first.new_zeros(size, dtype=dtype, requires_grad=False)
        self._sums: list[tuple[Tensor, Tensor, float]] = []
        kinds: dict[tuple[object, ...], list[Linears]] = {}
        for group in groups:
            kinds.setdefault(group.kind, []).append(group)
        sums, drafts = self.gradients, self._drafts
        for alike in kinds.values():
            count = len(alike)
            of_sums, sums = _cut(sums, count * alike[0].gradient_size)
            of_drafts, drafts = _cut(drafts, count * alike[0].draft_size)
            self._place(alike, of_sums, of_drafts)

    def _place(self, alike: Sequence[Linears], sums: Tensor, drafts: Tensor) -> None:
        """Give layers of one kind their places."""
        count, one = len(alike), alike[0]
        a_sum, sums = _cut(sums, count * one.rank * one.inputs)
        a_draft, tall = _cut(drafts, count * one.rank * one.inputs)
        a_sum, a_draft = (part.view(count, one.rank, one.inputs) for part in (a_sum, a_draft))
        tall = tall.view(count, sum(one.widths), one.rank)
        self._sums.append((a_sum, a_draft, 1.0))
        b_sums: list[Tensor] = []
        rows, columns = (list(accumulate(sizes, initial=0)) for sizes in (one.widths, one.ranks))
        for at, scale in enumerate(one.scales):
            if scale is None:
                continue
            part = tall[:, rows[at] : rows[at + 1], columns[at] : columns[at + 1]]
            b_sum, sums = _cut(sums, part.numel())
            b_sums.append(b_sum.view(part.shape))
            self._sums.append((b_sums[-1], part, scale))
        for at, group in enumerate(alike):
            group.keep_gradients(a_sum[at], [b_sum[at] for b_sum in b_sums])
            group.draft = a_draft[at], tall[at]

    def add_up(self) -> None:
        """Add the drafts to the gradients, and begin new ones."""
        for total, part, scale in self._sums:
            total.add_(part, alpha=scale)
        self._drafts.zero_()


def _cut(flat: Tensor, size: int) -> tuple[Tensor, Tensor]:
    return flat[:size], flat[size:]
