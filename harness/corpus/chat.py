"""Chat formats: lists of turns (OpenAI, ShareGPT, UltraChat), and Guanaco's turns in one text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.corpus.conversation import Speaker
from harness.corpus.fields import Location, get_list, get_mapping, get_role, get_text, wrong
from harness.corpus.threads import (
    UNRENDERED_IN_MESSAGES,
    Thread,
    Turn,
    find_system,
    refuse_keys,
    thread_reader,
)
from harness.corpus.trees import Format

GUANACO_TURN = re.compile(r"###\s*(Human|Assistant):")
LISTS = ("messages", "conversations", "conversation", "dialogue", "data")
WEIGHTS = ("weight", "train", "training")
SYSTEM_ROLES = ("system", "developer")


def list_key(data: Mapping[str, Any]) -> str | None:
    """The column that holds a list of turns, or should."""
    for key in LISTS:
        value = data.get(key)
        if isinstance(value, list) and value and isinstance(value[0], Mapping | str):
            return key
    return next((key for key in LISTS[:2] if key in data), None)


def chat_thread(data: Mapping[str, Any], place: Location) -> Thread:
    """A list of turns, with a system message from its first turn or from the record."""
    key = list_key(data) or LISTS[0]
    column, system = find_system(data, place)
    said, turns = read_turns(data, key, place)
    if said and system and said != system:
        raise wrong(f"{column} differs from the system turn", place.at(key), "one system message")
    uses = {key: "turns"} | ({column: "system message"} if column else {})
    prompt = data.get("prompt")
    if isinstance(prompt, str) and prompt.strip():
        if not turns or " ".join(prompt.split()) != " ".join(turns[0].text.split()):
            raise wrong("prompt is not the first turn", place.at("prompt"), f"the first of {key}")
        uses["prompt"] = "the first turn again"
    return Thread(turns, system or said, uses=uses)


def read_turns(data: Mapping[str, Any], key: str, place: Location) -> tuple[str, list[Turn]]:
    """The system text, if the first turn is one, and the turns after it."""
    system, turns = "", list[Turn]()
    for index, value in enumerate(get_list(data, key, place)):
        where = place.at(key).at(index)
        if isinstance(value, str) and key == "data":  # UltraChat's own files: user first, in turn
            role: Speaker = "assistant" if index % 2 else "user"
            turns.append(Turn(role, get_text({"text": value}, "text", where)))
            continue
        message = get_mapping(value, where)
        refuse_keys(message, UNRENDERED_IN_MESSAGES, where)
        who, said = ("from", "value") if "from" in message else ("role", "content")
        text = _content(message, said, where)
        if index == 0 and message.get(who) in SYSTEM_ROLES:
            system = text
        else:
            turns.append(Turn(get_role(message, who, where), text, _is_trained(message, where)))
    return system, turns


def _is_trained(message: Mapping[str, Any], place: Location) -> bool:
    """Whether a message's weight lets it be trained on; there is no weight between."""
    trained = True
    for key in WEIGHTS:
        value = message.get(key)
        if value is None:
            continue
        if value not in (0, 1):
            raise wrong(f"{key} is neither 0 nor 1", place.at(key), f"0 or 1, found {value!r:.60}")
        trained = trained and bool(value)
    return trained


def _content(message: Mapping[str, Any], key: str, place: Location) -> str:
    """A text, or the texts of a list of ``{"type": "text"}`` parts."""
    if not isinstance(message.get(key), list):
        return get_text(message, key, place)
    texts = []
    for index, part in enumerate(get_list(message, key, place)):
        where = place.at(key).at(index)
        texts.append(get_text(get_mapping(part, where), "text", where))
    return "\n".join(texts)


def guanaco_columns(data: Mapping[str, Any]) -> Sequence[str]:
    """The columns whose texts make a ``### Human: … ### Assistant: …`` thread; () for none."""
    start, end = data.get("input"), data.get("output")
    if isinstance(start, str) and isinstance(end, str) and GUANACO_TURN.match(start.lstrip()):
        return ("input", "output")
    text = data.get("text")
    return ("text",) if isinstance(text, str) and GUANACO_TURN.match(text.lstrip()) else ()


def guanaco_thread(data: Mapping[str, Any], place: Location) -> Thread:
    """The turns of a thread in Guanaco's text form."""
    columns = guanaco_columns(data)
    if not columns:
        get_text(data, "text", place)
        raise wrong("no ### Human: at the start", place.at("text"), "Guanaco's thread layout")
    column, system = find_system(data, place)
    text = " ".join(get_text(data, key, place) for key in columns)
    parts = GUANACO_TURN.split(text)[1:]
    roles: dict[str, Speaker] = {"Human": "user", "Assistant": "assistant"}
    turns = [
        Turn(roles[who], said.strip()) for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]
    uses = dict.fromkeys(columns, "turns") | ({column: "system message"} if column else {})
    return Thread(turns, system, uses=uses)


GUANACO = Format(
    'threads as text: {"text": "### Human: … ### Assistant: …"}',
    lambda data: bool(guanaco_columns(data)),
    thread_reader(guanaco_thread),
)
CHAT = Format(
    'lists of turns: {"messages": [{"role": …, "content": …}]}',
    lambda data: list_key(data) is not None,
    thread_reader(chat_thread),
)
