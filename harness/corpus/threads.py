"""Threads: records that are one conversation, or one prompt with several replies, become trees."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.corpus.conversation import Speaker
from harness.corpus.fields import Location, get_mapping, get_name, get_text, wrong
from harness.corpus.files import DataRecord
from harness.corpus.trees import MessageTree, Node, TreeGrower
from harness.errors import CorpusError

UNRENDERED = ("tools", "functions", "images", "image", "videos", "video", "audios", "audio")
"""Columns that change what the model reads, and that nothing here renders."""
UNRENDERED_IN_MESSAGES = (
    *UNRENDERED,
    *("tool_calls", "function_call", "tool_call_id", "name"),
    *("reasoning_content", "thinking", "refusal"),
)
SYSTEM_KEYS = ("system", "system_prompt", "system_message")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a thread; a reply that is not ``trained`` is context only."""

    role: Speaker
    text: str
    trained: bool = True


@dataclass(frozen=True, slots=True)
class Thread:
    """What a record says: turns, and for the last prompt perhaps other replies, best first.

    ``uses`` says what each column became.
    """

    turns: Sequence[Turn]
    system: str = ""
    ranked: Sequence[str] = ()
    uses: Mapping[str, str] = field(default_factory=dict)


ReadThread = Callable[[Mapping[str, Any], Location], Thread]


def thread_reader(
    take: ReadThread,
) -> Callable[[Iterable[DataRecord], TreeGrower], Iterator[MessageTree]]:
    """A reader for layouts whose records are single threads."""

    def read(records: Iterable[DataRecord], grower: TreeGrower) -> Iterator[MessageTree]:
        for record in records:
            try:
                data = get_mapping(record.data, record.place)
                refuse_keys(data, UNRENDERED, record.place)
                thread = take(data, record.place)
                _check_turns(thread, record.place)
                language = get_name(data, "lang", record.place, default="und")
            except CorpusError as error:
                grower.complaints.add(error)
                continue
            grower.columns.note(data, {"lang": "language", **thread.uses})
            yield _line_up(thread, record, language)

    return read


def refuse_keys(data: Mapping[str, Any], keys: Iterable[str], place: Location) -> None:
    """Refuse one of ``keys``, which carries meaning and cannot be rendered, unless it is empty.

    Raises:
        CorpusError: naming the key.
    """
    for key in keys:
        if data.get(key) not in (None, "", [], {}, "[]", "{}"):
            raise wrong(
                f"{key} is given, and conversations with it cannot be rendered",
                place.at(key),
                "messages of a system, a user and an assistant, in text",
            )


def find_system(data: Mapping[str, Any], place: Location) -> tuple[str | None, str]:
    """(column, text) of a record's system message; (None, "") where it has none."""
    given = [key for key in SYSTEM_KEYS if data.get(key) not in (None, "")]
    if len(given) > 1:
        raise wrong(f"{given[0]} and {given[1]} are both given", place, "one system message")
    if not given:
        return None, ""
    return given[0], get_text(data, given[0], place)


def _check_turns(thread: Thread, place: Location) -> None:
    turns = thread.turns
    for index, turn in enumerate(turns):
        if turn.role != ("assistant" if index % 2 else "user"):
            found = ", ".join(turn.role for turn in turns[:6])
            raise wrong("turns do not alternate", place, f"user first, in turn; found {found}")
        if not turn.text:
            raise wrong("a turn is empty", place, f"a text in turn {index + 1}")
    if len(turns) < 2 and not (turns and any(thread.ranked)):
        raise wrong("the thread has no reply", place, "at least a prompt and a reply")


def _line_up(thread: Thread, record: DataRecord, language: str) -> MessageTree:
    """A thread as a tree of one path, with ranked replies at its end.

    Threads with one first prompt belong to one tree for the split.
    """
    line = f"{record.place.file}:{record.place.line}"
    replies = tuple(
        Node(f"{line}/{rank}", "assistant", text, language, rank=rank, review_result=True)
        for rank, text in enumerate(thread.ranked)
        if text
    )
    for index, turn in reversed(list(enumerate(thread.turns))):
        node = Node(
            id=f"{line}/prompt{index}" if thread.ranked else f"{line}/{index}",
            role=turn.role,
            text=turn.text,
            language=language,
            review_result=True,
            trained=turn.trained,
            replies=replies,
        )
        replies = (node,)
    return MessageTree(prompt_id(thread.turns[0].text), None, replies[0], thread.system)


def prompt_id(text: str) -> str:
    """A tree id for data that has none, from the first prompt."""
    return "prompt-" + hashlib.sha256(" ".join(text.split()).casefold().encode()).hexdigest()[:32]
