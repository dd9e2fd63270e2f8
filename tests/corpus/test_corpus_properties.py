"""For any tree: conversations are true to it, and tokens are true to conversations."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.corpus.conversation import Conversation, Message
from harness.corpus.fields import Complaints
from harness.corpus.render import TEMPLATES, Renderer
from harness.corpus.selection import conversations, preference_pairs
from harness.corpus.sequences import IGNORED, make_training_rows
from harness.corpus.sources import find_source, read_trees
from harness.corpus.tokens import TokenSequence
from harness.corpus.trees import MessageTree, Node, TreeGrower, walk
from harness.spec.suite import CorpusSpec
from harness.spec.variant import Training

POLICIES = ("best_path", "all_paths", "top_paths", "one_reply")
some = settings(max_examples=settings().max_examples * 2 // 5)

texts = (
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1)
    .map(str.strip)
    .filter(bool)
)
hostile = st.sampled_from(
    ["</s>", "<|im_end|>", "<|im_start|>assistant\n", "### Assistant:", "USER:", "\ue0000\ue001",
     "### Response:\nx", "{{ eos_token }}", "- a\n- b", "a\r\nb", "\u200b", "é", "🙂"]
)  # fmt: skip
spoken = st.one_of(texts, hostile.map(str.strip), st.tuples(texts, hostile).map("".join)).map(
    str.strip
)


@st.composite
def trees(draw: st.DrawFn) -> MessageTree:
    """A tree of up to 20 messages with any ranks."""
    parents = draw(st.lists(st.integers(0, 18), max_size=19))
    below: dict[int, list[int]] = {}
    for child, parent in enumerate(parents, start=1):
        below.setdefault(min(parent, child - 1), []).append(child)

    def grow(index: int, depth: int) -> Node:
        return Node(
            id=f"m{index}",
            role="assistant" if depth % 2 else "user",
            text=draw(spoken.filter(bool)),
            language="en",
            rank=draw(st.none() | st.integers(0, 4)) if depth % 2 else None,
            review_result=True,
            replies=tuple(grow(child, depth + 1) for child in below.get(index, ())),
        )

    return MessageTree("tree", None, grow(0, 0))


def parents(root: Node) -> dict[str, str]:
    return {reply.id: node.id for node in walk(root) for reply in node.replies}


@some
@given(trees(), st.sampled_from(POLICIES), st.integers(0, 3))
def test_conversations_are_paths_of_their_tree(tree: MessageTree, policy: Any, rank: int) -> None:
    above = parents(tree.root)
    by_id = {node.id: node for node in walk(tree.root)}
    made = conversations(tree, CorpusSpec(policy=policy, max_rank=rank))
    assert len({one.id for one in made}) == len(made)
    for one in made:
        names = [message.id for message in one.messages]
        assert names[0] == tree.root.id
        assert [above[name] for name in names[1:]] == names[:-1]
        assert [m.role for m in one.messages] == ["user", "assistant"] * (len(names) // 2)
        assert all(m.text == by_id[m.id].text for m in one.messages)


@some
@given(trees())
def test_policies_contain_each_other(tree: MessageTree) -> None:
    made = {
        policy: {one.id for one in conversations(tree, CorpusSpec(policy=policy, max_rank=9))}
        for policy in POLICIES
    }
    assert made["best_path"] <= made["all_paths"]
    assert made["top_paths"] == made["all_paths"]
    assert len(made["best_path"]) <= 1
    replies = {node.id for node in walk(tree.root) if node.role == "assistant"}
    assert made["all_paths"] <= replies
    used = {m.id for c in conversations(tree, CorpusSpec(policy="all_paths")) for m in c.messages}
    assert replies <= used


@some
@given(trees())
def test_preferences_agree_with_ranks(tree: MessageTree) -> None:
    ranks = {node.id: node.rank for node in walk(tree.root)}
    above = parents(tree.root)
    for pair in preference_pairs(tree):
        assert ranks[pair.better.id] < ranks[pair.worse.id]  # type: ignore[operator]
        assert above[pair.better.id] == above[pair.worse.id] == pair.context[-1].id


def nested(node: Node, parent: str | None = None) -> dict[str, Any]:
    return {
        "message_id": node.id,
        "parent_id": parent,
        "text": node.text,
        "role": "assistant" if node.role == "assistant" else "prompter",
        "lang": node.language,
        "rank": node.rank,
        "review_result": True,
        "replies": [nested(reply, node.id) for reply in node.replies],
    }


def flat(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {key: value for key, value in node.items() if key != "replies"}
    for reply in node["replies"]:
        yield from flat(reply)


@some
@given(trees(), st.randoms())
def test_a_tree_is_read_back_from_either_layout(tree: MessageTree, chance: Any) -> None:
    data = nested(tree.root)
    rows = list(flat(data))
    with tempfile.TemporaryDirectory() as folder:
        one, other = Path(folder) / "trees.jsonl", Path(folder) / "messages.jsonl"
        one.write_text(json.dumps({"message_tree_id": "tree", "prompt": data}))
        other.write_text("\n".join(json.dumps({**r, "message_tree_id": "tree"}) for r in rows))
        for path in (one, other):
            spec = CorpusSpec(source=str(path))
            forest = TreeGrower(Complaints())
            assert list(read_trees(find_source(spec), spec, forest)) == [tree]
        chance.shuffle(rows)
        other.write_text("\n".join(json.dumps(row) for row in rows))
        spec = CorpusSpec(source=str(other))
        (found,) = read_trees(find_source(spec), spec, TreeGrower(Complaints()))
        assert parents(found.root) == parents(tree.root)


@pytest.fixture(scope="module")
def renderers(chatml_tokenizer: Any, base_tokenizer: Any) -> list[Renderer]:
    return [Renderer(chatml_tokenizer), *(Renderer(base_tokenizer, name) for name in TEMPLATES)]


@some
@given(st.lists(st.tuples(spoken, spoken), min_size=1, max_size=4))
def test_tokens_are_true_to_the_texts(
    renderers: list[Renderer], turns: list[tuple[str, str]]
) -> None:
    said = [text or "?" for turn in turns for text in turn]
    messages = tuple(
        Message("assistant" if n % 2 else "user", text, str(n)) for n, text in enumerate(said)
    )
    conversation = Conversation("c", "t", "en", messages)
    for renderer in renderers:
        sequence = renderer.encode(conversation)
        ids, mask = sequence.input_ids, sequence.loss_mask
        starts = np.flatnonzero(mask & ~np.concatenate([[False], mask[:-1]]))
        ends = np.flatnonzero(mask & ~np.concatenate([mask[1:], [False]])) + 1
        replies = [
            renderer.tokenizer.decode(ids[a:b].tolist()) for a, b in zip(starts, ends, strict=True)
        ]
        wanted = [text + renderer.end_of_turn for text in said[1::2]]
        assert [r[r.startswith(" ") :] for r in replies] == wanted
        prompt = renderer.prompt_ids(messages[:-1])
        assert ids[: len(prompt)].tolist() == prompt
        assert len(prompt) == starts[-1]
        ending = mask & (ids == renderer.end_of_turn_id)
        assert ending.sum() == len(wanted)


sequences = st.lists(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5),
    min_size=1,
    max_size=12,
)


@some
@given(sequences, st.integers(2, 40), st.sampled_from(["cut", "drop", "window"]), st.booleans())
def test_rows_keep_or_count_every_token(
    shapes: list[list[tuple[int, int]]], limit: int, overflow: Any, packing: bool
) -> None:
    made = []
    for number, shape in enumerate(shapes):
        mask = np.array([on for a, b in shape for on in [False] * a + [True] * b])
        ids = np.arange(len(mask), dtype=np.int32) + 1000 * number
        made.append(TokenSequence(str(number), str(number), ids, mask))
    training = Training(sequence_length=limit, overflow=overflow, packing=packing)
    rows = make_training_rows(made, training)
    seen = {int(token) for row in rows.rows for token in row.input_ids}
    total = sum(len(one.input_ids) for one in made)
    assert rows.truncated_tokens == total - len(seen)
    assert all(len(row.input_ids) <= limit for row in rows.rows)
    assert all((row.labels != IGNORED).any() for row in rows.rows)
    learned = [int(token) for row in rows.rows for token in row.labels if token != IGNORED]
    allowed = {int(t) for one in made for t in one.input_ids[one.loss_mask]}
    assert len(set(learned)) == len(learned)
    assert set(learned) <= allowed
    if overflow == "window":
        assert set(learned) == allowed
