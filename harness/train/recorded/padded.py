"""Batch: rows padded to one shape, with the places of the tokens that carry loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.corpus.sequences import IGNORED, TrainingRow
from harness.train.collate import assistant_tokens

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PaddedSize:
    """Room for a padded batch: rows, tokens of each, labelled tokens in all."""

    rows: int
    longest: int
    labelled: int

    @property
    def tokens(self) -> int:
        """Tokens that the device computes, padding included."""
        return self.rows * self.longest

    @classmethod
    def of(cls, rows: Sequence[TrainingRow]) -> PaddedSize:
        """Exactly what ``rows`` take."""
        longest = max(len(row.input_ids) for row in rows)
        return cls(len(rows), longest, sum(assistant_tokens(row) for row in rows))

    def covering(self, other: PaddedSize) -> PaddedSize:
        """Room for either."""
        return PaddedSize(
            max(self.rows, other.rows),
            max(self.longest, other.longest),
            max(self.labelled, other.labelled),
        )

    def filled_from(self, smallest: int) -> PaddedSize:  # noqa: ARG002 - padding needs no more room
        """The size that holds a batch of ``smallest`` tokens and what it is filled up with."""
        return self


@dataclass(frozen=True)
class PaddedBatch:
    """Rows padded on the right.

    ``ids`` are (rows, tokens) int64. The states at ``where`` (flat positions) predict ``targets``
    (int64; negative: carries no loss).
    """

    ids: torch.Tensor
    where: torch.Tensor
    targets: torch.Tensor

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors by name."""
        return {"ids": self.ids, "where": self.where, "targets": self.targets}


def make_padded_batch(
    rows: Sequence[TrainingRow], size: PaddedSize | None = None, pad_id: int = 0
) -> PaddedBatch:
    """Pad ``rows`` on the right, to their longest or to ``size``.

    Every row is one conversation. Attention is causal, so what stands behind a row changes
    nothing in it; rows of padding alone may follow.
    """
    import torch

    size = PaddedSize.of(rows) if size is None else size
    ids = np.full((size.rows, size.longest), pad_id, dtype=np.int64)
    labels = np.full((size.rows, size.longest), IGNORED, dtype=np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row.input_ids)] = row.input_ids
        labels[index, 1 : len(row.input_ids)] = row.labels[1:]  # nothing precedes the first
    where = np.zeros(size.labelled, dtype=np.int64)
    targets = np.full(size.labelled, IGNORED, dtype=np.int64)
    labelled = np.flatnonzero(labels.reshape(-1) != IGNORED)
    where[: len(labelled)] = labelled - 1
    targets[: len(labelled)] = labels.reshape(-1)[labelled]
    return PaddedBatch(*(torch.from_numpy(array) for array in (ids, where, targets)))
