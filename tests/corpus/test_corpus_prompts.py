"""Prompts: which layouts are recognised, what each column becomes, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from harness.corpus.fields import Location
from harness.corpus.prompts import (
    is_pair,
    is_preference,
    is_ranked,
    pair_thread,
    preference_thread,
    ranked_thread,
)
from harness.corpus.threads import Thread, find_system, prompt_id, refuse_keys
from harness.errors import CorpusError

PLACE = Location("data.jsonl", 7)


def said(thread: Thread) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in thread.turns]


@pytest.mark.parametrize("prompt", ["prompt", "instruction", "question", "query"])
@pytest.mark.parametrize("reply", ["completion", "response", "reply", "output", "answer"])
def test_a_prompt_and_a_reply_have_many_names(prompt: str, reply: str) -> None:
    data = {prompt: "Why?", reply: "Because."}
    assert is_pair(data)
    thread = pair_thread(data, PLACE)
    assert said(thread) == [("user", "Why?"), ("assistant", "Because.")]
    assert thread.uses == {prompt: "prompt", reply: "reply"}


@pytest.mark.parametrize("context", ["input", "context"])
def test_a_context_follows_the_instruction_after_a_blank_line(context: str) -> None:
    data = {"instruction": "Sum up.", context: "A text.", "output": "Short."}
    thread = pair_thread(data, PLACE)
    assert said(thread)[0] == ("user", "Sum up.\n\nA text.")
    assert thread.uses[context] == "prompt, after a blank line"


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_context_adds_nothing(empty: object) -> None:
    thread = pair_thread({"instruction": "Go.", "input": empty, "output": "Gone."}, PLACE)
    assert said(thread)[0] == ("user", "Go.")
    assert "input" not in thread.uses


@pytest.mark.parametrize("key", ["system", "system_prompt", "system_message"])
def test_a_system_message_is_kept_apart(key: str) -> None:
    thread = pair_thread({key: "Be kind.", "prompt": "Hi", "response": "Hello"}, PLACE)
    assert thread.system == "Be kind."
    assert thread.uses[key] == "system message"
    assert find_system({}, PLACE) == (None, "")


def test_two_system_messages_are_refused() -> None:
    with pytest.raises(CorpusError, match="system and system_prompt are both given"):
        find_system({"system": "a", "system_prompt": "b"}, PLACE)


HISTORIES: list[Any] = [
    [["Hi", "Hello"], ["How?", "So."]],
    [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "How?"},
        {"role": "assistant", "content": "So."},
    ],
]


@pytest.mark.parametrize("history", HISTORIES, ids=["pairs", "turns"])
def test_earlier_turns_come_before_the_prompt(history: Any) -> None:
    data = {"instruction": "Why?", "history": history, "output": "Because."}
    thread = pair_thread(data, PLACE)
    assert [text for _, text in said(thread)] == ["Hi", "Hello", "How?", "So.", "Why?", "Because."]
    assert [role for role, _ in said(thread)] == ["user", "assistant"] * 3
    assert thread.uses["history"] == "earlier turns"


@pytest.mark.parametrize("history", [[["only one"]], ["text"], [["a", "b", "c"]]])
def test_a_history_that_is_no_list_of_pairs_is_refused(history: Any) -> None:
    data = {"instruction": "Why?", "history": history, "output": "Because."}
    with pytest.raises(CorpusError, match="history") as caught:
        pair_thread(data, PLACE)
    assert "data.jsonl" in str(caught.value)


def test_a_reply_that_people_disliked_is_not_learnt() -> None:
    data = {"prompt": "Why?", "completion": "Whatever.", "label": False}
    with pytest.raises(CorpusError, match="the reply is a bad one"):
        pair_thread(data, PLACE)
    assert said(pair_thread({**data, "label": True}, PLACE))[1] == ("assistant", "Whatever.")


def test_replies_best_first_keep_their_order() -> None:
    data = {"instruction": "Name one.", "output": ["the best", "a good one", "a bad one"]}
    assert is_ranked(data)
    thread = ranked_thread(data, PLACE)
    assert said(thread) == [("user", "Name one.")]
    assert thread.ranked == ["the best", "a good one", "a bad one"]


def test_the_best_reply_must_say_something() -> None:
    with pytest.raises(CorpusError, match="a turn is empty"):
        ranked_thread({"instruction": "Name one.", "output": ["", "second"]}, PLACE)


PREFERENCES: list[dict[str, Any]] = [
    {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
    {
        "chosen": [
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": "Because."},
        ],
        "rejected": [
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": "No."},
        ],
    },
    {
        "prompt": "Why?",
        "chosen": {"role": "assistant", "content": "Because."},
        "rejected": {"role": "assistant", "content": "No."},
    },
]


@pytest.mark.parametrize("data", PREFERENCES, ids=["texts", "turns", "one turn each"])
def test_a_better_and_a_worse_reply_answer_one_prompt(data: dict[str, Any]) -> None:
    assert is_preference(data)
    thread = preference_thread(data, PLACE)
    assert said(thread) == [("user", "Why?")]
    assert thread.ranked == ["Because.", "No."]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"chosen": "Because.", "rejected": "No."}, "no prompt"),
        ({"prompt": "Why?", "chosen": "", "rejected": "No."}, "chosen has no reply"),
        (
            {"prompt": "Why?", "chosen": [{"role": "user", "content": "x"}], "rejected": "No."},
            "chosen has no reply",
        ),
        (
            {
                "chosen": [
                    {"role": "user", "content": "Why?"},
                    {"role": "assistant", "content": "a"},
                ],
                "rejected": [
                    {"role": "user", "content": "How?"},
                    {"role": "assistant", "content": "b"},
                ],
            },
            "answer different prompts",
        ),
    ],
)
def test_what_is_no_preference_is_refused_with_the_reason(data: dict[str, Any], words: str) -> None:
    with pytest.raises(CorpusError, match=words):
        preference_thread(data, PLACE)


@pytest.mark.parametrize("empty", [None, "", [], {}, "[]", "{}"])
def test_a_column_that_cannot_be_rendered_may_be_empty(empty: object) -> None:
    refuse_keys({"tools": empty}, ("tools",), PLACE)


def test_one_that_says_something_is_named() -> None:
    with pytest.raises(CorpusError, match="tools is given") as caught:
        refuse_keys({"tools": [{"name": "search"}]}, ("tools", "images"), PLACE)
    assert "data.jsonl" in str(caught.value)


def test_equal_first_prompts_are_one_tree_however_they_are_written() -> None:
    assert prompt_id("What  is\nit?") == prompt_id("what is it?")
    assert prompt_id("What is it?") != prompt_id("What is it")
    assert prompt_id("x").startswith("prompt-")
