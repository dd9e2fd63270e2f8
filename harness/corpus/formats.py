"""Formats: how each layout of conversation data is recognised and read into trees."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from harness.corpus.conversation import Role
from harness.corpus.fields import (
    Place,
    get_flag,
    get_labels,
    get_list,
    get_mapping,
    get_name,
    get_optional_name,
    get_rank,
    get_text,
    wrong,
)
from harness.corpus.forest import Forest, Leaf
from harness.corpus.records import Record
from harness.corpus.trees import MessageTree, Node
from harness.errors import CorpusError, UnknownName

ROLES: Mapping[str, Role] = {
    "prompter": "user",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
GUANACO_TURN = re.compile(r"###\s*(Human|Assistant):")
PROMPT_KEYS = ("prompt", "instruction", "question")
REPLY_KEYS = ("completion", "response", "reply", "output", "answer")
SNIFFED_RECORDS = 20


@dataclass(frozen=True, slots=True)
class Format:
    """One layout: what it looks like, whether a record has it, and how records become trees."""

    description: str
    matches: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Iterable[Record], Forest], Iterator[MessageTree]]


def recognise(records: Iterator[Record], name: str) -> tuple[str, Iterator[Record]]:
    """The format's name, and the records again from the first.

    "auto" takes the first format that fits the first records, all of them or none.

    Raises:
        UnknownName: no format of that name.
        CorpusError: no format fits.
    """
    if name != "auto":
        if name not in FORMATS:
            raise UnknownName("corpus format", name, ["auto", *FORMATS])
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


def _tree_records(records: Iterable[Record], forest: Forest) -> Iterator[MessageTree]:
    """OASST ``*.trees.jsonl``: one record per tree, replies nested."""
    for record in records:
        try:
            data = get_mapping(record.data, record.place)
            state = get_optional_name(data, "tree_state", record.place)
            prompt = get_mapping(data.get("prompt"), record.place.at("prompt"))
            tree = get_optional_name(data, "message_tree_id", record.place)
        except CorpusError as error:
            forest.complaints.add(error)
            continue
        yield from forest.grow(_nested(prompt, record.place.at("prompt"), tree, state, forest))


def _nested(
    prompt: Mapping[str, Any], place: Place, tree: str | None, state: str | None, forest: Forest
) -> Iterator[Leaf]:
    """A tree's messages, parents first; a bad message takes those below it along."""
    queue: list[tuple[Any, Place, str | None]] = [(prompt, place, None)]
    for value, where, parent in queue:
        try:
            data = get_mapping(value, where)
            stated = get_optional_name(data, "parent_id", where)
            if stated is not None and stated != parent:
                raise wrong("parent_id is not the message above", where.at("parent_id"), parent)
            leaf = Leaf(where, _node(data, where), parent, tree, state)
            replies = [] if data.get("replies") is None else get_list(data, "replies", where)
        except CorpusError as error:
            forest.complaints.add(error)
            continue
        if forest.admit(leaf):
            yield leaf
            inside = where.at("replies")
            queue += [(item, inside.at(n), leaf.node.id) for n, item in enumerate(replies)]


def _message_records(records: Iterable[Record], forest: Forest) -> Iterator[MessageTree]:
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
            forest.complaints.add(error)
            continue
        if forest.admit(leaf):
            leaves.append(leaf)
    yield from forest.grow(leaves)


def _node(data: Mapping[str, Any], place: Place) -> Node:
    """A message in OASST's columns, without replies."""
    deleted = bool(get_flag(data, "deleted", place))
    text = get_text(data, "text", place)
    if not text and not deleted:
        raise wrong("text is empty", place.at("text"), "a text, or deleted = true")
    return Node(
        id=get_name(data, "message_id", place),
        role=_role(data, "role", place),
        text=text,
        language=get_name(data, "lang", place, default="und"),
        rank=get_rank(data, "rank", place),
        deleted=deleted,
        review_result=get_flag(data, "review_result", place) if "review_result" in data else True,
        synthetic=bool(get_flag(data, "synthetic", place)),
        labels=get_labels(data, "labels", place),
    )


def _role(data: Mapping[str, Any], key: str, place: Place) -> Role:
    name = get_name(data, key, place)
    if name.lower() not in ROLES:
        raise wrong("unknown role", place.at(key), f"one of {', '.join(ROLES)}, found {name!r:.60}")
    return ROLES[name.lower()]


Turn = tuple[Role, str]


def _thread_records(
    take: Callable[[Mapping[str, Any], Place], Sequence[Turn]],
) -> Callable[[Iterable[Record], Forest], Iterator[MessageTree]]:
    """A reader for layouts whose records are single threads."""

    def read(records: Iterable[Record], forest: Forest) -> Iterator[MessageTree]:
        for record in records:
            try:
                data = get_mapping(record.data, record.place)
                turns = take(data, record.place)
                _check_turns(turns, record.place)
            except CorpusError as error:
                forest.complaints.add(error)
                continue
            yield _line_up(turns, record, get_name(data, "lang", record.place, default="und"))

    return read


def _check_turns(turns: Sequence[Turn], place: Place) -> None:
    for index, (role, text) in enumerate(turns):
        if role != ("assistant" if index % 2 else "user"):
            found = ", ".join(role for role, _ in turns[:6])
            raise wrong("turns do not alternate", place, f"user first, in turn; found {found}")
        if not text:
            raise wrong("a turn is empty", place, f"a text in turn {index + 1}")
    if len(turns) < 2:
        raise wrong("the thread has no reply", place, "at least a prompt and a reply")


def _line_up(turns: Sequence[Turn], record: Record, language: str) -> MessageTree:
    """A thread as a tree of one path. Threads with one first prompt belong to one tree."""
    line = f"{record.place.file}:{record.place.line}"
    node: Node | None = None
    for index in reversed(range(len(turns))):
        role, text = turns[index]
        replies = () if node is None else (node,)
        name = f"{line}/{index}"
        node = Node(name, role, text, language, review_result=True, replies=replies)
    if node is None:
        raise wrong("the thread is empty", record.place)
    return MessageTree(prompt_id(turns[0][1]), None, node)


def prompt_id(text: str) -> str:
    """A tree id for data that has none, from the first prompt."""
    return "prompt-" + hashlib.sha256(" ".join(text.split()).casefold().encode()).hexdigest()[:32]


def _guanaco_text(data: Mapping[str, Any]) -> str | None:
    """The whole ``### Human: … ### Assistant: …`` text, also where its end is in ``output``."""
    start, end = data.get("input"), data.get("output")
    if isinstance(start, str) and isinstance(end, str) and GUANACO_TURN.match(start.lstrip()):
        return f"{start} {end}"
    text = data.get("text")
    return text if isinstance(text, str) and GUANACO_TURN.match(text.lstrip()) else None


def _guanaco_turns(data: Mapping[str, Any], place: Place) -> list[Turn]:
    text = _guanaco_text(data)
    if text is None:
        get_text(data, "text", place)
        raise wrong("no ### Human: at the start", place.at("text"), "Guanaco's thread layout")
    text = get_text({"text": text}, "text", place)
    parts = GUANACO_TURN.split(text)[1:]
    roles: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
    return [(roles[who], said.strip()) for who, said in zip(parts[::2], parts[1::2], strict=True)]


def _chat_turns(data: Mapping[str, Any], place: Place) -> list[Turn]:
    """``messages`` or ``conversations`` lists; a system message goes in front of the prompt."""
    key = "messages" if "messages" in data else "conversations"
    system, turns = "", list[Turn]()
    for index, value in enumerate(get_list(data, key, place)):
        where = place.at(key).at(index)
        message = get_mapping(value, where)
        who, said = ("role", "content") if "role" in message else ("from", "value")
        text = _content(message, said, where)
        if index == 0 and message.get(who) == "system":
            system = f"{text}\n\n" if text else ""
        else:
            turns.append((_role(message, who, where), text))
    if system and turns and turns[0][0] == "user":
        turns[0] = ("user", system + turns[0][1])
    return turns


def _content(message: Mapping[str, Any], key: str, place: Place) -> str:
    """A text, or the texts of a list of ``{"type": "text"}`` parts."""
    if not isinstance(message.get(key), list):
        return get_text(message, key, place)
    texts = []
    for index, part in enumerate(get_list(message, key, place)):
        where = place.at(key).at(index)
        texts.append(get_text(get_mapping(part, where), "text", where))
    return "\n".join(texts)


def _first_key(data: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    return next((key for key in keys if isinstance(data.get(key), str | list)), None)


def _is_pair(data: Mapping[str, Any]) -> bool:
    return bool(_first_key(data, PROMPT_KEYS) and _first_key(data, REPLY_KEYS))


def _pair_turns(data: Mapping[str, Any], place: Place) -> list[Turn]:
    """A prompt and a reply, or Alpaca's instruction, input and output."""
    prompt, reply = _first_key(data, PROMPT_KEYS), _first_key(data, REPLY_KEYS)
    if prompt is None or reply is None:
        raise wrong("no prompt and reply", place, f"one of {PROMPT_KEYS} and one of {REPLY_KEYS}")
    if isinstance(data[prompt], list) and isinstance(data[reply], list):
        return _chat_turns({"messages": data[prompt] + data[reply]}, place)
    return [("user", _question(data, prompt, place)), ("assistant", get_text(data, reply, place))]


def _question(data: Mapping[str, Any], key: str, place: Place) -> str:
    text = get_text(data, key, place)
    extra = get_text(data, "input", place) if isinstance(data.get("input"), str) else ""
    return f"{text}\n\n{extra}" if extra else text


def _is_ranked(data: Mapping[str, Any]) -> bool:
    outputs = data.get("output")
    return isinstance(outputs, list) and isinstance(data.get("instruction"), str)


def _ranked_records(records: Iterable[Record], forest: Forest) -> Iterator[MessageTree]:
    """A prompt and a list of replies, best first."""
    for record in records:
        try:
            data = get_mapping(record.data, record.place)
            question = _question(data, "instruction", record.place)
            texts = [
                get_text({"output": item}, "output", record.place)
                for item in get_list(data, "output", record.place)
            ]
            _check_turns([("user", question), *(("assistant", t) for t in texts[:1])], record.place)
        except CorpusError as error:
            forest.complaints.add(error)
            continue
        line = f"{record.place.file}:{record.place.line}"
        language = get_name(data, "lang", record.place, default="und")
        replies = tuple(
            Node(f"{line}/{rank}", "assistant", text, language, rank=rank, review_result=True)
            for rank, text in enumerate(texts)
            if text
        )
        name = f"{line}/prompt"
        root = Node(name, "user", question, language, review_result=True, replies=replies)
        yield MessageTree(prompt_id(question), None, root)


FORMATS: dict[str, Format] = {
    "trees": Format(
        "OASST *.trees.jsonl, one record per tree: message_tree_id, prompt{text, role, replies[]}",
        lambda data: isinstance(data.get("prompt"), Mapping),
        _tree_records,
    ),
    "messages": Format(
        "OASST *.messages.jsonl or hub rows: message_id, parent_id, text, role",
        lambda data: "message_id" in data and "parent_id" in data and "role" in data,
        _message_records,
    ),
    "guanaco": Format(
        'threads as text: {"text": "### Human: … ### Assistant: …"}',
        lambda data: _guanaco_text(data) is not None,
        _thread_records(_guanaco_turns),
    ),
    "chat": Format(
        'lists of turns: {"messages": [{"role": …, "content": …}]}',
        lambda data: "messages" in data or "conversations" in data,
        _thread_records(_chat_turns),
    ),
    "ranked": Format(
        'replies best first: {"instruction": …, "output": [best, …]}', _is_ranked, _ranked_records
    ),
    "pairs": Format(
        'a prompt and a reply: {"prompt": …, "response": …}', _is_pair, _thread_records(_pair_turns)
    ),
}
"""Every corpus format. To add one, write a reader and put it here; order is that of recognition."""
