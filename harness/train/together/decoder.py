"""Decoder: loss and adapter gradients of several plans in one forward and one backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from harness.train.collate import StreamBatch, StreamSize, make_stream_batch
from harness.train.stream.decoder import Decoder
from harness.train.stream.linears import Linears
from harness.train.together.bank import Bank
from harness.train.together.linears import TogetherLinears
from harness.train.together.start import AdapterStart

if TYPE_CHECKING:
    from harness.corpus.sequences import TrainingRow


@dataclass(frozen=True)
class Abreast:
    """The rows at one place of a step, one of each plan; often they are the same."""

    rows: tuple[TrainingRow, ...]

    @property
    def input_ids(self) -> Any:
        """Those of the longest."""
        return max((row.input_ids for row in self.rows), key=len)


class TogetherDecoder(Decoder):
    """The stream of a micro-batch is one plan's tokens after another's.

    Losses and the scales of gradients are (plans). Each plan's part is filled up to the same
    shape, which is no filling where all train on the same rows.
    """

    linears: ClassVar[type[Linears]] = TogetherLinears

    def __init__(
        self,
        model: Any,
        dtype: torch.dtype,
        starts: Sequence[AdapterStart],
        **how: Any,
    ) -> None:
        """Take a model with the adapter of one plan, and what each of them begins with.

        Raises:
            UnsupportedLayer: something in the model that the fast path does not know.
        """
        super().__init__(model, dtype, **how)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        groups = [group for block in self.blocks for group in block.linears]
        together = [group for group in groups if isinstance(group, TogetherLinears)]
        self.bank = Bank(together, starts, names, dtype)

    def size_of(self, rows: Sequence[Any]) -> StreamSize:
        """Room for the rows of any one plan."""
        sizes = [StreamSize.of(part) for part in _plan_by_plan(rows)]
        whole = reduce(StreamSize.covering, sizes)
        return whole.filled_from(min(size.tokens for size in sizes))

    def batch(
        self, rows: Sequence[Any], size: StreamSize | None = None, pad_id: int = 0
    ) -> StreamBatch:
        """The plans' streams, one after another."""
        size = self.size_of(rows) if size is None else size
        made = [make_stream_batch(part, size, pad_id) for part in _plan_by_plan(rows)]
        offsets = [index * size.tokens for index in range(len(made))]
        starts = [one.starts[:-1] + offset for one, offset in zip(made, offsets, strict=True)]
        end = torch.tensor([len(made) * size.tokens], dtype=torch.int32)
        return StreamBatch(
            ids=torch.cat([one.ids for one in made]),
            positions=torch.cat([one.positions for one in made]),
            starts=torch.cat([*(one.to(torch.int32) for one in starts), end]),
            where=torch.cat([one.where + at for one, at in zip(made, offsets, strict=True)]),
            targets=torch.cat([one.targets for one in made]),
            longest=size.longest,
        )

    def refresh(self) -> None:
        """Take the adapters' present values. Call after every optimizer step."""
        self.bank.refresh()

    def join_gradients(self) -> Tensor:
        """All gradients, which are one tensor."""
        return self.bank.gradients.view(-1)

    def _head_loss(self, x: Tensor, batch: StreamBatch, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Summed losses (plans), and their gradients in ``x``, each times its ``scale``."""
        losses, slope = self._head_slope(x, batch, torch.ones_like(scale[0]))
        slope.view(len(scale), -1).mul_(scale[:, None])
        carried = torch.zeros_like(x)
        self._norm.backward_(x, slope, carried)
        return losses.view(len(scale), -1).sum(1), carried


def _plan_by_plan(rows: Sequence[Any]) -> list[tuple[TrainingRow, ...]]:
    return list(zip(*(one.rows for one in rows), strict=True))
