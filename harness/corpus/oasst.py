"""OASST's own formats: nested trees, and messages with parents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from harness.corpus.fields import (
    Location,
    get_flag,
    get_labels,
    get_list,
    get_mapping,
    get_name,
    get_optional_name,
    get_rank,
    get_role,
    get_text,
    wrong,
)
from harness.corpus.files import DataRecord
from harness.corpus.trees import Format, Leaf, MessageTree, Node, TreeGrower
from harness.errors import CorpusError

TREE_COLUMNS = {"message_tree_id": "tree", "tree_state": "filter", "prompt": "the tree"}
MESSAGE_COLUMNS = {
    "message_id": "message",
    "parent_id": "message above",
    "message_tree_id": "tree",
    "tree_state": "filter",
    "text": "text",
    "role": "role",
    "lang": "language",
    "rank": "rank",
    **dict.fromkeys(("deleted", "review_result", "synthetic", "labels"), "filter"),
}


def read_tree_records(records: Iterable[DataRecord], grower: TreeGrower) -> Iterator[MessageTree]:
    """OASST ``*.trees.jsonl``: one record per tree, replies nested."""
    for record in records:
        try:
            data = get_mapping(record.data, record.place)
            state = get_optional_name(data, "tree_state", record.place)
            prompt = get_mapping(data.get("prompt"), record.place.at("prompt"))
            tree = get_optional_name(data, "message_tree_id", record.place)
        except CorpusError as error:
            grower.complaints.add(error)
            continue
        grower.columns.note(data, TREE_COLUMNS)
        yield from grower.grow(_nested(prompt, record.place.at("prompt"), tree, state, grower))


def _nested(
    prompt: Mapping[str, Any],
    place: Location,
    tree: str | None,
    state: str | None,
    grower: TreeGrower,
) -> Iterator[Leaf]:
    """A tree's messages, parents first; a bad message takes those below it along."""
    queue: list[tuple[Any, Location, str | None]] = [(prompt, place, None)]
    for value, where, parent in queue:
        try:
            data = get_mapping(value, where)
            stated = get_optional_name(data, "parent_id", where)
            if stated is not None and stated != parent:
                raise wrong("parent_id is not the message above", where.at("parent_id"), parent)
            leaf = Leaf(where, _node(data, where), parent, tree, state)
            replies = [] if data.get("replies") is None else get_list(data, "replies", where)
        except CorpusError as error:
            grower.complaints.add(error)
            continue
        if grower.admit(leaf):
            yield leaf
            inside = where.at("replies")
            queue += [(item, inside.at(n), leaf.node.id) for n, item in enumerate(replies)]


def read_message_records(
    records: Iterable[DataRecord], grower: TreeGrower
) -> Iterator[MessageTree]:
    """OASST messages, one a record: ``*.messages.jsonl`` and the hub data set's rows."""
    leaves = []
    for record in records:
        try:
            data = get_mapping(record.data, record.place)
            leaf = Leaf(
                record.place,
                _node(data, record.place),
                get_optional_name(data, "parent_id", record.place),
                get_optional_name(data, "message_tree_id", record.place),
                get_optional_name(data, "tree_state", record.place),
            )
        except CorpusError as error:
            grower.complaints.add(error)
            continue
        grower.columns.note(data, MESSAGE_COLUMNS)
        if grower.admit(leaf):
            leaves.append(leaf)
    yield from grower.grow(leaves)


def _node(data: Mapping[str, Any], place: Location) -> Node:
    """A message in OASST's columns, without replies."""
    deleted = bool(get_flag(data, "deleted", place))
    text = get_text(data, "text", place)
    if not text and not deleted:
        raise wrong("text is empty", place.at("text"), "a text, or deleted = true")
    return Node(
        id=get_name(data, "message_id", place),
        role=get_role(data, "role", place),
        text=text,
        language=get_name(data, "lang", place, default="und"),
        rank=get_rank(data, "rank", place),
        deleted=deleted,
        review_result=get_flag(data, "review_result", place) if "review_result" in data else True,
        synthetic=bool(get_flag(data, "synthetic", place)),
        labels=get_labels(data, "labels", place),
    )


TREES = Format(
    "OASST *.trees.jsonl, one record per tree: message_tree_id, prompt{text, role, replies[]}",
    lambda data: isinstance(data.get("prompt"), Mapping),
    read_tree_records,
)
MESSAGES = Format(
    "OASST *.messages.jsonl or hub rows: message_id, parent_id, text, role",
    lambda data: "message_id" in data and "parent_id" in data and "role" in data,
    read_message_records,
)
