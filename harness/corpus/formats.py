"""Formats: every layout of conversation data, and how it is recognised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from harness.corpus.files import Record
from harness.corpus.oasst import read_message_records, read_tree_records
from harness.corpus.threads import (
    chat_turns,
    guanaco_text,
    guanaco_turns,
    is_pair,
    is_ranked,
    pair_turns,
    read_ranked_records,
    thread_reader,
)
from harness.corpus.trees import MessageTree, TreeGrower
from harness.errors import CorpusError

SNIFFED_RECORDS = 20


@dataclass(frozen=True, slots=True)
class Format:
    """One layout: what it looks like, whether a record has it, and how records become trees."""

    description: str
    matches: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Iterable[Record], TreeGrower], Iterator[MessageTree]]


def recognise(records: Iterator[Record], name: str) -> tuple[str, Iterator[Record]]:
    """The format's name, and the records again from the first.

    "auto" takes the first format that fits the first records, all of them or none.

    Raises:
        CorpusError: no format fits.
    """
    if name != "auto":
        return name, records
    sample = list(islice(records, SNIFFED_RECORDS))
    for candidate, layout in FORMATS.items():
        if any(isinstance(r.data, Mapping) and layout.matches(r.data) for r in sample):
            return candidate, chain(sample, records)
    if not sample:
        return "chat", records
    found = sample[0].data
    keys = ", ".join(map(str, list(found)[:12])) if isinstance(found, Mapping) else "no keys"
    raise CorpusError(
        f"not a known conversation format; the record has {keys}",
        where=sample[0].place,
        expected="\n            ".join(f"{k}: {v.description}" for k, v in FORMATS.items()),
        hint="convert the file to one of these",
    )


FORMATS: dict[str, Format] = {
    "trees": Format(
        "OASST *.trees.jsonl, one record per tree: message_tree_id, prompt{text, role, replies[]}",
        lambda data: isinstance(data.get("prompt"), Mapping),
        read_tree_records,
    ),
    "messages": Format(
        "OASST *.messages.jsonl or hub rows: message_id, parent_id, text, role",
        lambda data: "message_id" in data and "parent_id" in data and "role" in data,
        read_message_records,
    ),
    "guanaco": Format(
        'threads as text: {"text": "### Human: … ### Assistant: …"}',
        lambda data: guanaco_text(data) is not None,
        thread_reader(guanaco_turns),
    ),
    "chat": Format(
        'lists of turns: {"messages": [{"role": …, "content": …}]}',
        lambda data: "messages" in data or "conversations" in data,
        thread_reader(chat_turns),
    ),
    "ranked": Format(
        'replies best first: {"instruction": …, "output": [best, …]}',
        is_ranked,
        read_ranked_records,
    ),
    "pairs": Format(
        'a prompt and a reply: {"prompt": …, "response": …}', is_pair, thread_reader(pair_turns)
    ),
}
"""Every corpus format. To add one, write a reader and put it here; order is that of recognition."""
