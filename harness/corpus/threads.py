"""Threads: layouts whose records are one conversation, or one prompt with ranked replies."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness.corpus.conversation import Role
from harness.corpus.fields import (
    Location,
    get_list,
    get_mapping,
    get_name,
    get_role,
    get_text,
    wrong,
)
from harness.corpus.files import Record
from harness.corpus.trees import MessageTree, Node, TreeGrower
from harness.errors import CorpusError

GUANACO_TURN = re.compile(r"###\s*(Human|Assistant):")
PROMPT_KEYS = ("prompt", "instruction", "question")
REPLY_KEYS = ("completion", "response", "reply", "output", "answer")

Turn = tuple[Role, str]


def thread_reader(
    take: Callable[[Mapping[str, Any], Location], Sequence[Turn]],
) -> Callable[[Iterable[Record], TreeGrower], Iterator[MessageTree]]:
    """A reader for layouts whose records are single threads."""

    def read(records: Iterable[Record], grower: TreeGrower) -> Iterator[MessageTree]:
        for record in records:
            try:
                data = get_mapping(record.data, record.place)
                turns = take(data, record.place)
                _check_turns(turns, record.place)
            except CorpusError as error:
                grower.complaints.add(error)
                continue
            yield _line_up(turns, record, get_name(data, "lang", record.place, default="und"))

    return read


def _check_turns(turns: Sequence[Turn], place: Location) -> None:
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


def guanaco_text(data: Mapping[str, Any]) -> str | None:
    """The whole ``### Human: … ### Assistant: …`` text, also where its end is in ``output``."""
    start, end = data.get("input"), data.get("output")
    if isinstance(start, str) and isinstance(end, str) and GUANACO_TURN.match(start.lstrip()):
        return f"{start} {end}"
    text = data.get("text")
    return text if isinstance(text, str) and GUANACO_TURN.match(text.lstrip()) else None


def guanaco_turns(data: Mapping[str, Any], place: Location) -> list[Turn]:
    """The turns of a thread in Guanaco's text form."""
    text = guanaco_text(data)
    if text is None:
        get_text(data, "text", place)
        raise wrong("no ### Human: at the start", place.at("text"), "Guanaco's thread layout")
    text = get_text({"text": text}, "text", place)
    parts = GUANACO_TURN.split(text)[1:]
    roles: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
    return [(roles[who], said.strip()) for who, said in zip(parts[::2], parts[1::2], strict=True)]


def chat_turns(data: Mapping[str, Any], place: Location) -> list[Turn]:
    """``messages`` or ``conversations`` lists; a system message goes in front of the prompt."""
    key = "messages" if "messages" in data else "conversations"
    system, turns = "", list[Turn]()
    for index, value in enumerate(get_list(data, key, place)):
        where = place.at(key).at(index)
        message = get_mapping(value, where)
        who, said = ("from", "value") if "from" in message else ("role", "content")
        text = _content(message, said, where)
        if index == 0 and message.get(who) == "system":
            system = f"{text}\n\n" if text else ""
        else:
            turns.append((get_role(message, who, where), text))
    if system and turns and turns[0][0] == "user":
        turns[0] = ("user", system + turns[0][1])
    return turns


def _content(message: Mapping[str, Any], key: str, place: Location) -> str:
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


def is_pair(data: Mapping[str, Any]) -> bool:
    """Whether there is a prompt and a reply under any of their names."""
    return bool(_first_key(data, PROMPT_KEYS) and _first_key(data, REPLY_KEYS))


def pair_turns(data: Mapping[str, Any], place: Location) -> list[Turn]:
    """A prompt and a reply, or Alpaca's instruction, input and output."""
    prompt, reply = _first_key(data, PROMPT_KEYS), _first_key(data, REPLY_KEYS)
    if prompt is None or reply is None:
        raise wrong("no prompt and reply", place, f"one of {PROMPT_KEYS} and one of {REPLY_KEYS}")
    if isinstance(data[prompt], list) and isinstance(data[reply], list):
        return chat_turns({"messages": data[prompt] + data[reply]}, place)
    return [("user", _question(data, prompt, place)), ("assistant", get_text(data, reply, place))]


def _question(data: Mapping[str, Any], key: str, place: Location) -> str:
    text = get_text(data, key, place)
    extra = get_text(data, "input", place) if isinstance(data.get("input"), str) else ""
    return f"{text}\n\n{extra}" if extra else text


def is_ranked(data: Mapping[str, Any]) -> bool:
    """Whether there is an instruction with a list of replies."""
    outputs = data.get("output")
    return isinstance(outputs, list) and isinstance(data.get("instruction"), str)


def read_ranked_records(records: Iterable[Record], grower: TreeGrower) -> Iterator[MessageTree]:
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
            grower.complaints.add(error)
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
