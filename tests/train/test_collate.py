"""Collate: rows become tensors in which conversations keep apart and padding carries no loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.corpus.sequences import IGNORED, TrainingRow
from harness.train.collate import (
    FIRST_ROWS,
    StreamSize,
    assistant_tokens,
    collate,
    first_batches,
    make_stream_batch,
)

PAD = 99


def row(*conversations: int, labelled: int = 2) -> TrainingRow:
    """Conversations of so many tokens, each ending in ``labelled`` tokens that carry loss."""
    ids, labels, positions = [], [], []
    for number, size in enumerate(conversations):
        own = [10 * (number + 1) + place for place in range(size)]
        ids += own
        labels += [IGNORED] * (size - labelled) + own[size - labelled :]
        positions += range(size)
    arrays = (np.array(values, dtype=np.int32) for values in (ids, labels, positions))
    return TrainingRow(*arrays, conversations)


def test_rows_are_filled_up_on_the_right() -> None:
    batch = collate([row(4), row(2)], PAD)
    assert batch["input_ids"].tolist() == [[10, 11, 12, 13], [10, 11, PAD, PAD]]
    assert batch["labels"].tolist() == [
        [IGNORED, IGNORED, 12, 13],
        [IGNORED, 11, IGNORED, IGNORED],
    ], "the first token has no prediction"
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert "position_ids" not in batch
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_packed_rows_say_where_conversations_begin_and_bring_no_mask() -> None:
    batch = collate([row(3, 2), row(4)], PAD)
    assert "attention_mask" not in batch
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 0]]
    assert batch["labels"][0].tolist() == [IGNORED, 11, 12, IGNORED, 21]


def test_tokens_with_loss_are_those_with_a_label_and_a_token_before_them() -> None:
    assert assistant_tokens(row(4)) == 2
    assert assistant_tokens(row(2)) == 1, "the first of a conversation is not predicted"
    assert assistant_tokens(row(3, 3)) == 4
    assert assistant_tokens(row(5, labelled=0)) == 0


def test_a_stream_takes_what_its_rows_take() -> None:
    size = StreamSize.of([row(3, 2), row(6)])
    assert (size.tokens, size.conversations, size.labelled, size.longest) == (11, 3, 5, 6)


def test_room_for_either_is_the_larger_of_each() -> None:
    one, two = StreamSize(10, 4, 3, 9), StreamSize(12, 2, 5, 6)
    assert one.covering(two) == two.covering(one) == StreamSize(12, 4, 5, 9)


def test_a_stream_has_no_padding() -> None:
    batch = make_stream_batch([row(3, 2), row(4)])
    tensors = batch.tensors
    assert tensors["ids"].tolist() == [10, 11, 12, 20, 21, 10, 11, 12, 13]
    assert tensors["positions"].tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 3]
    assert tensors["starts"].tolist() == [0, 3, 5, 9]
    labelled = tensors["where"].tolist()
    assert tensors["ids"][[place + 1 for place in labelled]].tolist() == [11, 12, 21, 12, 13]
    assert tensors["targets"].tolist() == [11, 12, 21, 12, 13]


def test_filling_up_a_stream_adds_nothing_that_counts() -> None:
    rows = [row(3, 2), row(4)]
    plain = make_stream_batch(rows).tensors
    size = StreamSize.of(rows).covering(StreamSize(16, 6, 8, 7))
    filled = make_stream_batch(rows, size, PAD).tensors
    assert len(filled["ids"]) == 16
    assert len(filled["starts"]) == 7
    assert filled["ids"][:9].tolist() == plain["ids"].tolist()
    carries = filled["targets"] >= 0
    assert filled["targets"][carries].tolist() == plain["targets"].tolist()
    assert filled["where"][carries].tolist() == plain["where"].tolist()
    assert filled["starts"].diff().max() <= 7


@pytest.mark.parametrize("count", [3, FIRST_ROWS + 5])
def test_the_first_rows_are_batches_of_their_own(count: int) -> None:
    batches = first_batches([row(4 + number % 3) for number in range(count)], PAD, "cpu")
    assert len(batches) == min(count, FIRST_ROWS)
    assert [batch["input_ids"].shape for batch in batches[:3]] == [(1, 4), (1, 5), (1, 6)]
    assert all((batch["attention_mask"] == 1).all() for batch in batches)
