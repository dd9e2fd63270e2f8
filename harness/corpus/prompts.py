"""Prompt formats: a prompt with a reply, replies best first, or a better and a worse one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.corpus.chat import read_turns
from harness.corpus.fields import Location, get_flag, get_list, get_text, wrong
from harness.corpus.threads import Thread, Turn, find_system, thread_reader
from harness.corpus.trees import Format

PROMPT_KEYS = ("prompt", "instruction", "question", "query")
REPLY_KEYS = ("completion", "response", "reply", "output", "answer")
CONTEXT_KEYS = ("input", "context", "query")
PREFERRED = ("chosen", "rejected")


def _first_key(data: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    return next((key for key in keys if isinstance(data.get(key), str | list)), None)


def is_pair(data: Mapping[str, Any]) -> bool:
    """Whether there is a prompt and a reply under any of their names."""
    return bool(_first_key(data, PROMPT_KEYS) and _first_key(data, REPLY_KEYS))


def is_ranked(data: Mapping[str, Any]) -> bool:
    """Whether there is an instruction with a list of replies."""
    outputs = data.get("output")
    return isinstance(outputs, list) and isinstance(data.get("instruction"), str)


def is_preference(data: Mapping[str, Any]) -> bool:
    """Whether there is a better and a worse reply."""
    return all(data.get(key) is not None for key in PREFERRED)


def pair_thread(data: Mapping[str, Any], place: Location) -> Thread:
    """A prompt and a reply, or Alpaca's and Dolly's instruction, context and reply."""
    prompt, reply = _first_key(data, PROMPT_KEYS), _first_key(data, REPLY_KEYS)
    if prompt is None or reply is None:
        raise wrong("no prompt and reply", place, f"one of {PROMPT_KEYS} and one of {REPLY_KEYS}")
    if isinstance(data.get("label"), bool) and not get_flag(data, "label", place):
        raise wrong("label says that the reply is a bad one", place.at("label"), "replies to learn")
    opening = _opening(data, prompt, place)
    if isinstance(data[reply], list):
        _, replies = read_turns(data, reply, place)
    else:
        replies = [Turn("assistant", get_text(data, reply, place))]
    return Thread([*opening.turns, *replies], opening.system, uses={**opening.uses, reply: "reply"})


def ranked_thread(data: Mapping[str, Any], place: Location) -> Thread:
    """A prompt and a list of replies, best first."""
    opening = _opening(data, "instruction", place)
    replies = [
        get_text({"output": item}, "output", place) for item in get_list(data, "output", place)
    ]
    if replies and not replies[0]:
        raise wrong("a turn is empty", place, "a text in the best reply")
    return Thread(
        opening.turns, opening.system, replies, {**opening.uses, "output": "replies, best first"}
    )


def preference_thread(data: Mapping[str, Any], place: Location) -> Thread:
    """A better and a worse reply to a prompt, as DPO takes them; the prompt may be in both."""
    texts, before = [], list[list[Turn]]()
    system = ""
    for key in PREFERRED:
        one = isinstance(data.get(key), Mapping)
        value = {key: [data[key]]} if one else data
        if isinstance(value.get(key), list):
            said, turns = read_turns(value, key, place)
            system = system or said
        else:
            turns = [Turn("assistant", get_text(data, key, place))]
        if not turns or turns[-1].role != "assistant" or not turns[-1].text:
            raise wrong(f"{key} has no reply", place.at(key), "a text, or turns that end with one")
        texts.append(turns[-1].text)
        before.append(turns[:-1])
    if before[0] != before[1]:
        raise wrong("chosen and rejected answer different prompts", place, "one prompt for both")
    column = "conversations" if "conversations" in data else _first_key(data, PROMPT_KEYS)
    opening = Thread(before[0], system)
    if column is not None and not before[0]:
        opening = _opening(data, column, place, system)
    elif not before[0]:
        raise wrong("no prompt", place, f"one of {PROMPT_KEYS}, or turns in chosen and rejected")
    column, own = find_system(data, place)
    uses = {"chosen": "better reply", "rejected": "worse reply", "prompt": "prompt"}
    uses |= {column: "system message"} if column else {}
    return Thread(opening.turns, own or opening.system, texts, {**uses, **opening.uses})


def _opening(data: Mapping[str, Any], prompt: str, place: Location, system: str = "") -> Thread:
    """What stands before the reply: system message, earlier turns, prompt with its context."""
    column, own = find_system(data, place)
    uses = {prompt: "prompt"} | ({column: "system message"} if column else {})
    earlier = _history(data, place)
    if earlier:
        uses["history"] = "earlier turns"
    if isinstance(data.get(prompt), list):
        said, turns = read_turns(data, prompt, place)
        return Thread([*earlier, *turns], own or said or system, uses=uses)
    text = get_text(data, prompt, place)
    for key in CONTEXT_KEYS:
        if key == prompt or data.get(key) is None:
            continue
        extra = get_text(data, key, place)
        if extra:
            text = f"{text}\n\n{extra}" if text else extra
            uses[key] = "prompt, after a blank line"
    return Thread([*earlier, Turn("user", text)], own or system, uses=uses)


def _history(data: Mapping[str, Any], place: Location) -> list[Turn]:
    """Alpaca's ``history``: lists of a prompt and a reply, or turns."""
    if data.get("history") in (None, "", []):
        return []
    history, place = get_list(data, "history", place), place.at("history")
    if all(isinstance(item, Mapping) for item in history):
        return read_turns({"history": history}, "history", place)[1]
    turns = list[Turn]()
    for index, item in enumerate(history):
        where = place.at(index)
        if not isinstance(item, list) or len(item) != 2:
            raise wrong("history does not hold pairs", where, "[prompt, reply]")
        for part, text in enumerate(item):
            said = get_text({"text": text}, "text", where.at(part))
            turns.append(Turn("assistant" if part else "user", said))
    return turns


PREFERENCES = Format(
    'a better and a worse reply: {"prompt": …, "chosen": …, "rejected": …}',
    is_preference,
    thread_reader(preference_thread),
)
RANKED = Format(
    'replies best first: {"instruction": …, "output": [best, …]}',
    is_ranked,
    thread_reader(ranked_thread),
)
PAIRS = Format(
    'a prompt and a reply: {"prompt": …, "response": …}', is_pair, thread_reader(pair_thread)
)
