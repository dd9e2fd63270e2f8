"""Batch: rows to the tensors of one forward pass, with exact attention boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from harness.corpus.sequences import Row

IGNORED = -100


def collate(rows: Sequence[Row], pad_id: int) -> dict[str, torch.Tensor]:
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


def assistant_tokens(row: Row) -> int:
    """Tokens of ``row`` that carry loss."""
    carries = np.asarray(row.labels) != IGNORED
    return int(np.count_nonzero(carries & (np.asarray(row.position_ids) != 0)))
