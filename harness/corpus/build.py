"""build_corpus: from the suite's corpus section to training and held-out conversations."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.corpus.conversation import Conversation, PreferencePair
from harness.corpus.policies import conversations, preference_pairs
from harness.corpus.trees import MessageTree, Node
from harness.errors import CorpusError
from harness.events import Progress, Silence
from harness.plan import SAMPLE
from harness.record import CorpusResult
from harness.suite import CorpusSpec


@dataclass(frozen=True)
class Corpus:
    """What a suite trains on and is scored on; ``pairs`` come from held-out trees only."""

    train: tuple[Conversation, ...]
    held_out: tuple[Conversation, ...]
    pairs: tuple[PreferencePair, ...]
    result: CorpusResult


def build_corpus(spec: CorpusSpec, progress: Progress = Silence()) -> Corpus:  # noqa: B008
    """Read the source, filter, select, split. Needs neither torch nor a tokenizer."""
    path = SAMPLE if spec.source == "sample" else Path(spec.source)
    if not path.is_file():
        raise CorpusError("no such corpus", where=path)
    progress.note(f"reading {path.name}")
    sides: dict[bool, list[MessageTree]] = {True: [], False: []}
    for tree in _trees(path):
        digest = hashlib.sha256(f"{tree.language}/{tree.id}".encode()).digest()
        share = int.from_bytes(digest[:8], "big") / 2**64
        sides[share < spec.held_out_fraction].append(tree)
    train = tuple(c for tree in sides[False] for c in conversations(tree, spec))
    held_out = tuple(c for tree in sides[True] for c in conversations(tree, spec))
    held_out = held_out[: spec.held_out_limit]
    return Corpus(
        train,
        held_out,
        tuple(pair for tree in sides[True] for pair in preference_pairs(tree)),
        CorpusResult(
            name=path.name,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            is_sample=spec.source == "sample",
            train_conversations=len(train),
            held_out_conversations=len(held_out),
        ),
    )


def _trees(path: Path) -> Iterator[MessageTree]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    for line in text.splitlines():
        tree = json.loads(line)
        root = _node(tree["prompt"])
        if tree["tree_state"] == "ready_for_export" and root is not None:
            yield MessageTree(tree["message_tree_id"], tree["tree_state"], root)


def _node(data: dict[str, Any]) -> Node | None:
    if data["deleted"] or not data["review_result"] or not data["text"].strip():
        return None
    replies = (_node(reply) for reply in data.get("replies", ()))
    return Node(
        id=data["message_id"],
        role="user" if data["role"] == "prompter" else "assistant",
        text=data["text"].strip(),
        language=data["lang"],
        rank=data["rank"],
        review_result=True,
        replies=tuple(node for node in replies if node is not None),
    )
