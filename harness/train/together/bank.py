"""Bank: the adapters of plans that train together, a row each, so that one kernel serves all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from harness.train.together.linears import TogetherLinears
from harness.train.together.start import AdapterStart

# Ranks are filled up to a multiple of it: products of 16-bit numbers want aligned columns.
ALIGNED = 8


class Bank:
    """Adapters of all plans.

    ``values`` and ``gradients`` are (plans, parameters) in the dtype of the adapters: first A of
    every layer, then B of every layer. Ranks are filled up with zeros to the highest of them.
    Zeros beside zeros have no gradient, so they stay zeros and add to no norm.
    """

    def __init__(
        self,
        groups: Sequence[TogetherLinears],
        starts: Sequence[AdapterStart],
        names: Mapping[int, str],
        dtype: torch.dtype,
    ) -> None:
        """Take what each plan begins with.

        ``names`` are those of the adapters' parameters in the model, by ``id``; products run in
        ``dtype``.
        """
        self._groups = [group for group in groups if group.adapted]
        self._names = [[(names[id(a)], names[id(b)]) for a, b in g.adapted] for g in self._groups]
        every_a = [a for pairs in self._names for a, _ in pairs]
        highest = max(start.weights[a].shape[0] for start in starts for a in every_a)
        self._rank = -(-highest // ALIGNED) * ALIGNED
        self._shapes = [group.shapes(self._rank) for group in self._groups]
        like = next(iter(starts[0].weights.values()))
        self._short = sum(rows * columns for (rows, columns), *_ in self._shapes)  # of all A
        size = sum(rows * columns for shapes in self._shapes for rows, columns in shapes)
        self.values = like.new_zeros((len(starts), size))
        self.gradients = torch.zeros_like(self.values)
        self._copies = torch.zeros_like(self.values, dtype=dtype)
        scales = [start.scale for start in starts]
        self._scales = torch.tensor(scales, device=like.device, dtype=like.dtype)[:, None]
        for row, start in enumerate(starts):
            self._put(row, start.weights)
        self._bind()

    def _parts(self, flat: Tensor) -> list[list[Tensor]]:
        """Views of (plans, parameters) ``flat`` by group: all A, then B of each adapted layer."""
        firsts = [shapes[0] for shapes in self._shapes]
        others = [shapes[1:] for shapes in self._shapes]
        short = _cut(flat[:, : self._short], firsts)
        tall = _cut(flat[:, self._short :], [shape for shapes in others for shape in shapes])
        ends = [0, *accumulate(len(shapes) for shapes in others)]
        return [
            [one, *tall[start:end]]
            for one, start, end in zip(short, ends[:-1], ends[1:], strict=True)
        ]

    def _bind(self) -> None:
        pairs = zip(self._parts(self._copies), self._parts(self.gradients), strict=True)
        for group, (copies, gradients) in zip(self._groups, pairs, strict=True):
            group.bind(self._rank, copies, gradients)

    def _by_name(self, flat: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for names, (short, *tall) in zip(self._names, self._parts(flat), strict=True):
            each = torch.split(short, self._rank, dim=1)
            for (a, b), of_a, of_b in zip(names, each, tall, strict=True):
                found[a], found[b] = of_a, of_b
        return found

    def _put(self, row: int, weights: Mapping[str, Tensor]) -> None:
        places = self._by_name(self.values)
        for name, weight in weights.items():
            rows, columns = weight.shape
            places[name][row, :rows, :columns].copy_(weight)

    def take(self, row: int, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of the weights of plan ``row`` by name, in the shapes of ``like``."""
        places = self._by_name(self.values)
        return {
            name: places[name][row, : weight.shape[0], : weight.shape[1]].clone()
            for name, weight in like.items()
        }

    def refresh(self) -> None:
        """Let products use the present values."""
        short, scaled = self.values[:, : self._short], self.values[:, self._short :]
        self._copies[:, : self._short].copy_(short)
        self._copies[:, self._short :].copy_(scaled * self._scales)

    def finish_gradients(self, limits: Tensor) -> Tensor:
        """Scale B's gradients, and cut each plan's to its limit; returns the norms before that.

        ``limits`` and norms are (plans). As :func:`torch.nn.utils.clip_grad_norm_`.
        """
        self.gradients[:, self._short :].mul_(self._scales)
        norms: Tensor = torch.linalg.vector_norm(self.gradients, dim=1)
        self.gradients.mul_((limits / (norms + 1e-6)).clamp(max=1.0)[:, None])
        return norms


class AdapterRow(nn.Module):
    """The parameters of one plan's adapter as one, with its gradient."""

    def __init__(self, bank: Bank, row: int) -> None:
        super().__init__()
        self.adapters = nn.Parameter(bank.values[row])
        self.adapters.grad = bank.gradients[row]


def _cut(flat: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    sizes = [rows * columns for rows, columns in shapes]
    return [
        part.view(len(flat), *shape)
        for part, shape in zip(torch.split(flat, sizes, dim=1), shapes, strict=True)
    ]
