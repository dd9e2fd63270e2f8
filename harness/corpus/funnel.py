"""Funnel: what was left after each step, and what the step took away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from harness.corpus.conversation import Conversation
from harness.corpus.trees import MessageTree, walk
from harness.records.record import FunnelRow

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
        """Add a row for a step that left ``trees``."""
        trees = list(trees)
        texts = {node.id: node.text for tree in trees for node in walk(tree.root)}
        self._add(step, len(trees), texts, None, why)

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
            parts.append(f"{was - now:,} {unit}")
    return ", ".join(parts)
