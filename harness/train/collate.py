"""Collate: rows to the tensors of one forward pass, with exact attention boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.corpus.sequences import IGNORED, TrainingRow

if TYPE_CHECKING:
    import torch

TENSORS = ("ids", "positions", "starts", "where", "targets")


def collate(rows: Sequence[TrainingRow], pad_id: int) -> dict[str, torch.Tensor]:
    """Right-pad ``rows`` to the longest of them; every tensor is (rows, tokens), int64.

    Unpacked rows get an ``attention_mask``. Packed rows get none: transformers reads the
    boundaries off ``position_ids``, which start again at 0 with each conversation (and with the
    padding), and builds a block-diagonal causal mask from them.
    """
    import torch

    width = max(len(row.input_ids) for row in rows)
    shape = (len(rows), width)
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    labels = np.full(shape, IGNORED, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    for index, row in enumerate(rows):
        size = len(row.input_ids)
        input_ids[index, :size] = row.input_ids
        labels[index, :size] = row.labels
        positions[index, :size] = row.position_ids
        positions[index, size:] = np.arange(width - size)
        mask[index, :size] = 1
    labels[positions == 0] = IGNORED  # the first token of a conversation has no prediction
    batch = {"input_ids": input_ids, "labels": labels, "position_ids": positions}
    if all(len(row.lengths) == 1 for row in rows):
        batch["attention_mask"] = mask
        del batch["position_ids"]
    return {name: torch.from_numpy(array) for name, array in batch.items()}


FIRST_ROWS = 64  # enough for statistics of a layer's inputs: CorDA's authors take 256 samples


def first_batches(
    rows: Sequence[TrainingRow], pad_id: int, device: Any
) -> list[dict[str, torch.Tensor]]:
    """The first rows, each a batch of its own on ``device``: nothing is padded."""
    return [
        {name: tensor.to(device) for name, tensor in collate([row], pad_id).items()}
        for row in rows[:FIRST_ROWS]
    ]


def assistant_tokens(row: TrainingRow) -> int:
    """Tokens of ``row`` that carry loss."""
    carries = np.asarray(row.labels) != IGNORED
    return int(np.count_nonzero(carries & (np.asarray(row.position_ids) != 0)))


@dataclass(frozen=True)
class StreamSize:
    """Room for a stream batch: tokens, conversations, labelled tokens, longest conversation."""

    tokens: int
    conversations: int
    labelled: int
    longest: int

    @classmethod
    def of(cls, rows: Sequence[TrainingRow]) -> StreamSize:
        """Exactly what ``rows`` take."""
        lengths = [size for row in rows for size in row.lengths]
        labelled = sum(assistant_tokens(row) for row in rows)
        return cls(sum(lengths), len(lengths), labelled, max(lengths))

    def covering(self, other: StreamSize) -> StreamSize:
        """Room for either."""
        names = [field.name for field in fields(self)]
        return StreamSize(*(max(getattr(self, name), getattr(other, name)) for name in names))

    def filled_from(self, smallest: int) -> StreamSize:
        """The size that holds a batch of ``smallest`` tokens and what it is filled up with."""
        fillings = -(-(self.tokens - smallest) // self.longest)
        return replace(self, conversations=self.conversations + fillings)


@dataclass(frozen=True)
class StreamBatch:
    """Rows end to end without padding between them.

    ``ids`` and ``positions`` are (tokens) int64; ``starts`` are cumulative conversation lengths
    (int32). The logits at ``where`` predict ``targets`` (int64, negative: carries no loss).
    """

    ids: torch.Tensor
    positions: torch.Tensor
    starts: torch.Tensor
    where: torch.Tensor
    targets: torch.Tensor
    longest: int

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors by name."""
        return {name: getattr(self, name) for name in TENSORS}


def make_stream_batch(
    rows: Sequence[TrainingRow], size: StreamSize | None = None, pad_id: int = 0
) -> StreamBatch:
    """Lay ``rows`` end to end; with ``size``, fill up to that shape after them.

    The filling is a conversation of its own (cut to ``longest``) that carries no loss.
    """
    import torch

    exact = StreamSize.of(rows)
    size = exact if size is None else size
    lengths = [length for row in rows for length in row.lengths]
    fill = size.tokens - exact.tokens
    while fill > 0:
        lengths.append(min(fill, size.longest))
        fill -= lengths[-1]
    ids = np.full(size.tokens, pad_id, dtype=np.int64)
    labels = np.full(size.tokens, IGNORED, dtype=np.int64)
    ids[: exact.tokens] = np.concatenate([row.input_ids for row in rows])
    labels[: exact.tokens] = np.concatenate([row.labels for row in rows])
    positions = np.concatenate([np.arange(length) for length in lengths])
    labels[positions == 0] = IGNORED
    starts = np.full(max(size.conversations, len(lengths)) + 1, size.tokens, dtype=np.int32)
    starts[: len(lengths) + 1] = np.cumsum([0, *lengths])
    where = np.full(size.labelled, size.tokens - 1, dtype=np.int64)  # predicts nothing
    targets = np.full(size.labelled, IGNORED, dtype=np.int64)
    labelled = np.flatnonzero(labels != IGNORED)
    where[: len(labelled)] = labelled - 1
    targets[: len(labelled)] = labels[labelled]
    return StreamBatch(
        ids=torch.from_numpy(ids),
        positions=torch.from_numpy(positions),
        starts=torch.from_numpy(starts),
        where=torch.from_numpy(where),
        targets=torch.from_numpy(targets),
        longest=size.longest,
    )
