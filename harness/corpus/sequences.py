"""Rows: token sequences cut to length and packed, with everything left out counted."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.corpus.tokens import BoolArray, IntArray, TokenSequence
from harness.spec.variant import Training

IGNORED = -100


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRow:
    """One training row of one or more conversations, without padding.

    ``input_ids``, ``labels`` (-100 carries no loss) and ``position_ids`` (from 0 in each
    conversation) are [tokens] int32; ``lengths`` are tokens per conversation and sum to tokens.
    Labels stand at their own token; shifting is the loss function's work.
    """

    input_ids: IntArray
    labels: IntArray
    position_ids: IntArray
    lengths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Training rows and what the sequence length cost.

    ``truncated_tokens`` counts every token of the sequences that is in no row;
    ``cut_conversations`` lost whole turns, ``cut_replies`` of them the end of their only reply
    that could be kept; ``dropped_conversations`` are in no row at all. ``of_conversation`` holds
    for each sequence, in the order given, the indices of the rows that it is in.
    """

    rows: tuple[TrainingRow, ...]
    truncated_tokens: int
    dropped_conversations: int
    cut_conversations: int
    cut_replies: int
    sequence_length: int
    of_conversation: tuple[tuple[int, ...], ...]

    @property
    def tokens_per_row(self) -> list[int]:
        """Tokens of each row, in order."""
        return [len(row.input_ids) for row in self.rows]

    @property
    def tokens(self) -> int:
        """Tokens in all rows."""
        return sum(self.tokens_per_row)


def make_training_rows(sequences: Iterable[TokenSequence], training: Training) -> TrainingRows:
    """Fit sequences into rows of at most ``training.sequence_length`` tokens.

    Overflow ``cut`` keeps the first whole turns, or, where not even the first reply fits, the
    first tokens; ``drop`` leaves the conversation out; ``window`` takes it apart into windows
    that overlap by one token, so that every assistant token is predicted once. A piece without
    an assistant token to learn is left out and counted, also where ``training.loss_on`` is
    "everything": what is learned changes the labels and never the rows.
    """
    limit = training.sequence_length
    pieces: list[tuple[IntArray, IntArray]] = []
    pieces_of: list[range] = []
    truncated = dropped = cut = cut_replies = 0
    for sequence in sequences:
        kept, lost = _fit(sequence, training)
        truncated += lost
        dropped += not kept
        pieces_of.append(range(len(pieces), len(pieces) + len(kept)))
        pieces += kept
        if kept and lost and training.overflow == "cut":
            cut += 1
            cut_replies += len(kept[0][0]) == limit and not _ends_turn(sequence.loss_mask, limit)
    packed = (
        best_fit_decreasing([len(ids) for ids, _ in pieces], limit)
        if training.packing
        else ([[index] for index in range(len(pieces))])
    )
    rows = tuple(_row([pieces[index] for index in group]) for group in packed)
    row_of = {piece: row for row, group in enumerate(packed) for piece in group}
    of_conversation = tuple(tuple(row_of[piece] for piece in found) for found in pieces_of)
    return TrainingRows(rows, truncated, dropped, cut, cut_replies, limit, of_conversation)


def _ends_turn(mask: BoolArray, end: int) -> bool:
    return bool(mask[end - 1]) and (end == len(mask) or not mask[end])


def _fit(
    sequence: TokenSequence, training: Training
) -> tuple[list[tuple[IntArray, IntArray]], int]:
    """The (ids, labels) pieces of a sequence and how many of its tokens are in none of them."""
    ids, mask = sequence.input_ids, sequence.loss_mask
    limit, overflow = training.sequence_length, training.overflow
    if len(ids) <= limit:
        spans = [(0, len(ids))]
    elif overflow == "drop":
        spans = []
    elif overflow == "window":
        spans = list(_windows(len(ids), limit))
    else:
        spans = [(0, _last_turn_end(mask, limit))]
    everything = training.loss_on == "everything"
    labels = np.where(mask | everything, ids, IGNORED).astype(np.int32)
    pieces, seen = [], np.zeros(len(ids), dtype=np.bool_)
    for start, end in spans:
        piece = labels[start:end].copy()
        piece[:1] = IGNORED
        if mask[start + 1 : end].any():
            pieces.append((ids[start:end], piece))
            seen[start:end] = True
    return pieces, int((~seen).sum())


def _windows(length: int, limit: int) -> Iterator[tuple[int, int]]:
    step = max(1, limit - 1)
    for start in range(0, max(1, length - 1), step):
        yield start, min(length, start + limit)


def _last_turn_end(mask: BoolArray, limit: int) -> int:
    """Where the last reply ends that is whole within ``limit``; ``limit`` if there is none."""
    ends = np.flatnonzero(mask[:limit] & ~mask[1 : limit + 1])
    return int(ends[-1]) + 1 if len(ends) else limit


def best_fit_decreasing(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Group indices so that the lengths of a group sum to ``limit`` at most.

    Best-fit decreasing bin packing: each, longest first, goes where the least room is left
    that still takes it.
    """
    groups: list[list[int]] = []
    room: list[tuple[int, int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = bisect_left(room, (lengths[index], -1))
        if place == len(room):
            groups.append([index])
            left, group = limit - lengths[index], len(groups) - 1
        else:
            left, group = room.pop(place)
            groups[group].append(index)
            left -= lengths[index]
        insort(room, (left, group))
    return groups


def _row(pieces: Sequence[tuple[IntArray, IntArray]]) -> TrainingRow:
    lengths = tuple(len(ids) for ids, _ in pieces)
    return TrainingRow(
        np.concatenate([ids for ids, _ in pieces]),
        np.concatenate([labels for _, labels in pieces]),
        np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        lengths,
    )
