"""From trees to conversations and preference pairs."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harness.corpus.corpus import build_corpus
from harness.corpus.fields import Complaints
from harness.corpus.selection import conversations, preference_pairs
from harness.corpus.sources import find_source, read_trees
from harness.corpus.trees import MessageTree, Node, TreeGrower, prune, walk
from harness.spec.suite import CorpusSpec


def node(name: str, rank: int | None = None, *replies: Node) -> Node:
    role = "user" if name.startswith("u") else "assistant"
    return Node(name, role, f"text of {name}", "en", rank=rank, replies=replies)


TREE = MessageTree(
    "t",
    None,
    node(
        "u1",
        None,
        node("a-worst", 2, node("u-x", None, node("a-x", 0))),
        node("a-best", 0, node("u2", None, node("a-second", 1), node("a-first", 0)), node("u3")),
        node("a-middle", 1),
        node("a-unranked"),
    ),
)


def names(policy: str, **choices: Any) -> list[str]:
    spec = CorpusSpec(policy=policy, **choices)
    return [one.id for one in conversations(TREE, spec)]


@pytest.mark.parametrize(
    ("policy", "choices", "ends"),
    [
        ("best_path", {}, ["a-first"]),
        ("all_paths", {}, ["a-first", "a-second", "a-best", "a-middle", "a-x", "a-unranked"]),
        ("top_paths", {"max_rank": 0}, ["a-first", "a-best", "a-unranked"]),
        ("top_paths", {"max_rank": 1}, ["a-first", "a-second", "a-best", "a-middle", "a-unranked"]),
        ("one_reply", {}, ["a-best"]),
    ],
)
def test_policies(policy: str, choices: dict[str, Any], ends: list[str]) -> None:
    assert names(policy, **choices) == ends


def test_a_conversation_ends_with_the_assistant() -> None:
    (one,) = conversations(TREE, CorpusSpec())
    assert [m.id for m in one.messages] == ["u1", "a-best", "u2", "a-first"]
    assert [m.role for m in one.messages] == ["user", "assistant"] * 2


def test_a_prompt_without_reply_is_no_conversation() -> None:
    assert conversations(MessageTree("t", None, node("u1")), CorpusSpec()) == []


def test_every_pair_of_ranked_siblings_is_a_preference() -> None:
    pairs = [(pair.better.id, pair.worse.id) for pair in preference_pairs(TREE)]
    assert pairs == [
        ("a-best", "a-middle"),
        ("a-best", "a-worst"),
        ("a-middle", "a-worst"),
        ("a-first", "a-second"),
    ]
    deep = list(preference_pairs(TREE))[-1]
    assert [message.id for message in deep.context] == ["u1", "a-best", "u2"]


def test_equal_ranks_are_no_preference() -> None:
    tree = MessageTree("t", None, node("u", None, node("a", 1), node("b", 1)))
    assert list(preference_pairs(tree)) == []


def test_pruning_takes_a_message_with_all_below_it() -> None:
    root = prune(TREE.root, lambda one: one.id != "a-best")
    assert root is not None
    assert [one.id for one in walk(root)] == [
        "u1", "a-worst", "u-x", "a-x", "a-middle", "a-unranked",
    ]  # fmt: skip
    assert prune(TREE.root, lambda one: one.id != "u1") is None
    assert prune(TREE.root, lambda _: True) is TREE.root


def _raw_best_path(tree: dict[str, Any]) -> list[str]:
    """The best path counted from the raw JSON, as a reader of the file would."""
    path, replies = [tree["prompt"]["message_id"]], tree["prompt"]["replies"]
    while True:
        usable = [r for r in replies if not r["deleted"] and r["review_result"]]
        if not usable:
            return path
        best = min(usable, key=lambda r: 99 if r["rank"] is None else r["rank"])
        path.append(best["message_id"])
        replies = best["replies"]


def test_best_paths_of_the_real_trees_are_those_of_the_raw_file(oasst: Path) -> None:
    source = oasst / "oasst1-en-validation.trees.jsonl.gz"
    with gzip.open(source, "rt", encoding="utf-8") as file:
        raw = {}
        for line in file:
            tree = json.loads(line)
            raw[tree["message_tree_id"]] = _raw_best_path(tree)
    corpus = build_corpus(CorpusSpec(source=str(source)))
    every = [*corpus.train, *corpus.held_out]
    assert len(every) == 188
    for one in every:
        path = [message.id for message in one.messages]
        assert path == raw[one.tree_id][: len(path)]
        assert len(raw[one.tree_id]) - len(path) in (0, 1)


def test_no_policy_lets_deleted_or_rejected_messages_through(oasst: Path) -> None:
    source = oasst / "oasst1-en-validation.jsonl.gz"
    with gzip.open(source, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    bad = {r["message_id"] for r in rows if r["deleted"] or r["review_result"] is not True}
    assert len(bad) > 80
    corpus = build_corpus(CorpusSpec(source=str(source), policy="all_paths"))
    used = {m.id for one in (*corpus.train, *corpus.held_out) for m in one.messages}
    assert not used & bad
    ranks = Counter(pair.tree_id for pair in corpus.pairs)
    assert set(ranks) <= {one.tree_id for one in corpus.held_out}


def test_the_ranked_siblings_of_the_real_trees(oasst: Path) -> None:
    """All of them become preferences: nothing is lost between the file and the task."""
    spec = CorpusSpec(source=str(oasst / "oasst1-en-validation.trees.jsonl.gz"))
    trees = list(read_trees(find_source(spec), spec, TreeGrower(Complaints())))
    ranked = [
        (tree.id, parent.id)
        for tree in trees
        for parent in walk(tree.root)
        if sum(one.role == "assistant" and one.rank is not None for one in parent.replies) > 1
    ]
    assert len(ranked) == 418
    paired = {(tree.id, pair.context[-1].id) for tree in trees for pair in preference_pairs(tree)}
    assert len(paired) == 418
