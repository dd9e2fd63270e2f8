"""Lengths: how long conversations are in tokens, and what a sequence length takes from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.corpus.render import TokenSequence
from harness.corpus.sequences import Rows
from harness.records.record import CorpusResult, FunnelRow

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
SMALLEST_BOUND = 32


def with_lengths(result: CorpusResult, sequences: Sequence[TokenSequence]) -> CorpusResult:
    """``result`` with the quantiles and histogram of the training conversations' tokens."""
    lengths = np.array([len(one.input_ids) for one in sequences], dtype=np.int64)
    return result.model_copy(
        update={
            "length_quantiles": length_quantiles(lengths),
            "length_histogram": length_histogram(lengths),
        }
    )


def length_quantiles(
    lengths: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> tuple[tuple[float, int], ...]:
    """(share of conversations, tokens that so many of them have at most)."""
    if not len(lengths):
        return ()
    values = np.quantile(lengths, QUANTILES, method="inverted_cdf")
    return tuple((share, int(value)) for share, value in zip(QUANTILES, values, strict=True))


def length_histogram(
    lengths: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> tuple[tuple[int, int], ...]:
    """(upper bound in tokens, conversations above the bound before and up to this one).

    Bounds double from 32 to the first that holds the longest.
    """
    if not len(lengths):
        return ()
    bounds = [SMALLEST_BOUND]
    while bounds[-1] < lengths.max():
        bounds.append(bounds[-1] * 2)
    places = np.searchsorted(bounds, lengths, side="left")
    counts = np.bincount(places, minlength=len(bounds))
    return tuple((bound, int(count)) for bound, count in zip(bounds, counts, strict=True))


def with_rows(result: CorpusResult, rows: Rows, overflow: str) -> CorpusResult:
    """``result`` with a last funnel row: what one variant's sequence length left."""
    removed = [f"{rows.truncated_tokens:,} tokens over {rows.sequence_length:,} ({overflow})"]
    if rows.cut_conversations:
        removed.append(
            f"{rows.cut_conversations:,} conversations cut, {rows.cut_replies:,} inside a reply"
        )
    if rows.dropped_conversations:
        removed.append(f"{rows.dropped_conversations:,} conversations dropped")
    row = FunnelRow(
        step="sequence length",
        trees=None,
        messages=None,
        conversations=result.train_conversations - rows.dropped_conversations,
        tokens=rows.tokens,
        removed="; ".join(removed) if rows.truncated_tokens else "",
    )
    return result.model_copy(update={"funnel": (*result.funnel, row)})
