"""Funnel: every step says what it left and what it took, without a tokenizer too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.corpus.conversation import Conversation, Message
from harness.corpus.funnel import (
    SMALLEST_BOUND,
    Funnel,
    length_histogram,
    length_quantiles,
    with_lengths,
    with_rows,
)
from harness.corpus.sequences import TrainingRows
from harness.corpus.trees import MessageTree, Node
from harness.records.corpus_result import CorpusResult


def node(name: str, text: str, role: str = "user", *replies: Node) -> Node:
    return Node(name, role, text, "en", replies=replies)  # type: ignore[arg-type]


def tree(name: str, *replies: Node, system: str = "") -> MessageTree:
    root = node(name, f"question {name}", "user", *replies)
    return MessageTree(name, None, root, system)


def conversation(name: str, *texts: str) -> Conversation:
    roles = ("user", "assistant")
    messages = tuple(
        Message(roles[place % 2], text, f"{name}/{text}")  # type: ignore[arg-type]
        for place, text in enumerate(texts)
    )
    return Conversation(name, name, "en", messages)


def words(texts: Sequence[str]) -> list[int]:
    """A tokenizer that cuts at spaces."""
    return [len(text.split()) for text in texts]


TREES = [tree("a", node("a1", "one reply", "assistant")), tree("b", system="be kind")]


def test_a_first_step_takes_nothing() -> None:
    funnel = Funnel(words)
    funnel.after_trees("read", TREES)
    (row,) = funnel.rows
    assert (row.trees, row.messages, row.conversations) == (2, 4, None), "a system text counts"
    assert row.tokens == 2 + 2 + 2 + 2
    assert row.removed == ""


def test_a_later_step_says_what_it_took_and_why() -> None:
    funnel = Funnel(words)
    funnel.after_trees("read", TREES)
    funnel.after_trees("language", TREES[:1], "not English")
    assert funnel.rows[-1].removed == "1 tree, 2 messages: not English"


def test_a_step_that_took_nothing_says_nothing() -> None:
    funnel = Funnel()
    funnel.after_trees("read", TREES)
    funnel.after_trees("language", TREES, "not English")
    assert funnel.rows[-1].removed == "", "nor why it would have taken something"
    funnel.after_conversations("policy", [conversation("a", "q", "yes")], "not on best_path")
    funnel.after_conversations("policy", [conversation("a", "q", "yes")], "not on best_path")
    assert [bool(row.removed) for row in funnel.rows[2:]] == [True, False]


def test_trees_of_one_name_count_once() -> None:
    """Conversations with the same first prompt are one tree, in every row."""
    funnel = Funnel()
    funnel.after_trees("read", [tree("a"), tree("a"), tree("b")])
    assert funnel.rows[-1].trees == 2


def test_a_message_of_several_conversations_counts_once() -> None:
    funnel = Funnel(words)
    shared = [conversation("a", "q", "yes"), conversation("a", "q", "no")]
    funnel.after_conversations("paths", shared)
    (row,) = funnel.rows
    assert (row.trees, row.messages, row.conversations, row.tokens) == (1, 3, 2, 3)


def test_another_branch_is_not_compared_with_the_one_before() -> None:
    funnel = Funnel()
    funnel.after_trees("read", TREES)
    funnel.restart()
    funnel.after_trees("held out", TREES[:1])
    assert funnel.rows[-1].removed == ""


def test_without_a_tokenizer_tokens_are_unknown() -> None:
    funnel = Funnel()
    funnel.after_trees("read", TREES)
    assert funnel.rows[0].tokens is None


def test_a_text_is_counted_once_however_many_steps_see_it() -> None:
    asked: list[str] = []

    def count(texts: Sequence[str]) -> list[int]:
        asked.extend(texts)
        return words(texts)

    funnel = Funnel(count)
    for step in ("read", "language", "length"):
        funnel.after_trees(step, TREES)
    assert len(asked) == 4


def test_quantiles_are_lengths_that_there_are() -> None:
    found = dict(length_quantiles(np.array([10, 20, 30, 40])))
    assert found[0.0] == 10
    assert found[0.5] == 20
    assert found[1.0] == 40
    assert length_quantiles(np.array([], dtype=np.int64)) == ()


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=60))
def test_a_histogram_counts_every_conversation_in_doubling_bounds(lengths: list[int]) -> None:
    found = length_histogram(np.array(lengths))
    bounds = [bound for bound, _ in found]
    assert bounds == [SMALLEST_BOUND * 2**place for place in range(len(bounds))]
    assert sum(count for _, count in found) == len(lengths)
    assert bounds[-1] >= max(lengths)
    assert len(bounds) == 1 or bounds[-2] < max(lengths)
    for place, (bound, count) in enumerate(found):
        low = bounds[place - 1] if place else 0
        assert count == sum(low < length <= bound for length in lengths)


RESULT = CorpusResult(
    name="c",
    sha256=None,
    is_sample=False,
    train_conversations=10,
    held_out_conversations=2,
    funnel=(),
    length_quantiles=(),
    languages=(),
    length_histogram=(),
)


def rows(**changes: int) -> TrainingRows:
    fields = {
        "rows": (),
        "truncated_tokens": 0,
        "dropped_conversations": 0,
        "cut_conversations": 0,
        "cut_replies": 0,
        "sequence_length": 512,
        "of_conversation": (),
    }
    return TrainingRows(**(fields | changes))  # type: ignore[arg-type]


def test_a_length_that_cuts_nothing_takes_nothing() -> None:
    row = with_rows(RESULT, rows(), "cut").funnel[-1]
    assert (row.step, row.conversations, row.removed) == ("sequence length", 10, "")


@pytest.mark.parametrize(
    ("changes", "removed"),
    [
        ({"truncated_tokens": 1200}, "1,200 tokens over 512 (cut)"),
        (
            {"truncated_tokens": 5, "cut_conversations": 3, "cut_replies": 1},
            "5 tokens over 512 (cut); 3 conversations cut, 1 inside a reply",
        ),
        (
            {"truncated_tokens": 5, "dropped_conversations": 4},
            "5 tokens over 512 (cut); conversations dropped: 4",
        ),
    ],
)
def test_what_a_sequence_length_takes_is_said(changes: dict[str, int], removed: str) -> None:
    row = with_rows(RESULT, rows(**changes), "cut").funnel[-1]
    assert row.removed == removed
    assert row.conversations == 10 - changes.get("dropped_conversations", 0)


def test_lengths_of_no_conversations_are_no_lengths() -> None:
    assert with_lengths(RESULT, []).length_histogram == ()
