"""Funnel: what was left after each step, how long it is in tokens, and what went away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from harness.corpus.conversation import Conversation
from harness.corpus.sequences import TrainingRows
from harness.corpus.tokens import TokenSequence
from harness.corpus.trees import MessageTree, walk
from harness.records.corpus_result import CorpusResult, FunnelRow

CountTokens = Callable[[Sequence[str]], Sequence[int]]


class Funnel:
    """Collects rows. Tokens are those of the message texts, and null without a tokenizer."""

    def __init__(self, count_tokens: CountTokens | None = None) -> None:
        """Take what counts the tokens of texts, if there is a tokenizer."""
        self._count = count_tokens
        self._tokens: dict[str, int] = {}
        self.rows: list[FunnelRow] = []
        self._compare = False

    def restart(self) -> None:
        """Let the next row stand alone: it starts another branch."""
        self._compare = False

    def after_trees(self, step: str, trees: Iterable[MessageTree], why: str = "") -> None:
        """Add a row for a step that left ``trees``; those of one name count once."""
        trees = list(trees)
        texts = {node.id: node.text for tree in trees for node in walk(tree.root)}
        texts |= {f"{tree.root.id}/system": tree.system for tree in trees if tree.system}
        self._add(step, len({tree.id for tree in trees}), texts, None, why)

    def after_conversations(
        self, step: str, conversations: Sequence[Conversation], why: str = ""
    ) -> None:
        """Add a row for a step that left ``conversations``; a shared message counts once."""
        texts = {m.id: m.text for one in conversations for m in one.messages}
        trees = len({one.tree_id for one in conversations})
        self._add(step, trees, texts, len(conversations), why)

    def _add(
        self, step: str, trees: int, texts: dict[str, str], conversations: int | None, why: str
    ) -> None:
        tokens = None
        if self._count is not None:
            new = [key for key in texts if key not in self._tokens]
            counts = self._count([texts[key] for key in new])
            self._tokens.update(zip(new, counts, strict=True))
            tokens = sum(self._tokens[key] for key in texts)
        removed = ""
        if self._compare:
            removed = _difference(self.rows[-1], trees, len(texts), conversations)
            why = why if removed else ""
        self._compare = True
        self.rows.append(
            FunnelRow(
                step=step,
                trees=trees,
                messages=len(texts),
                conversations=conversations,
                tokens=tokens,
                removed=": ".join(part for part in (removed, why) if part),
            )
        )


def _difference(before: FunnelRow, trees: int, messages: int, conversations: int | None) -> str:
    parts = []
    pairs = (
        ("trees", before.trees, trees),
        ("messages", before.messages, messages),
        ("conversations", before.conversations, conversations),
    )
    for unit, was, now in pairs:
        if was is not None and now is not None and was != now:
            lost = was - now
            parts.append(f"{lost:,} {unit[:-1] if lost == 1 else unit}")
    return ", ".join(parts)


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


def with_rows(result: CorpusResult, rows: TrainingRows, overflow: str) -> CorpusResult:
    """``result`` with a last funnel row: what one variant's sequence length left."""
    removed = [f"{rows.truncated_tokens:,} tokens over {rows.sequence_length:,} ({overflow})"]
    if rows.cut_conversations:
        removed.append(
            f"{rows.cut_conversations:,} conversations cut, {rows.cut_replies:,} inside a reply"
        )
    if rows.dropped_conversations:
        removed.append(f"conversations dropped: {rows.dropped_conversations:,}")
    row = FunnelRow(
        step="sequence length",
        trees=None,
        messages=None,
        conversations=result.train_conversations - rows.dropped_conversations,
        tokens=rows.tokens,
        removed="; ".join(removed) if rows.truncated_tokens else "",
    )
    return result.model_copy(update={"funnel": (*result.funnel, row)})
