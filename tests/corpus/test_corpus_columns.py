"""What the columns of people's files become: used as they are meant, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.corpus.conversation import Conversation
from harness.corpus.corpus import Corpus, build_corpus
from harness.errors import CorpusError
from harness.spec.suite import CorpusSpec

CASES = Path(__file__).parents[3] / "shared" / "cases" / "data"


def build(path: Path, **choices: Any) -> Corpus:
    return build_corpus(CorpusSpec(source=str(path), **choices))


def written(path: Path, record: dict[str, Any], **choices: Any) -> Corpus:
    """Thirty records that differ in one number, so that both sides have some."""
    lines = [json.dumps(record).replace("NUMBER", str(number)) for number in range(30)]
    file = path / "mine.jsonl"
    file.write_text("\n".join(lines))
    return build(file, **choices)


def said(conversation: Conversation) -> list[tuple[str, str]]:
    return [(m.role, m.text) for m in conversation.messages]


def without_number(corpus: Corpus) -> list[tuple[str, str]]:
    one = corpus.train[0]
    number = one.messages[-1].text.rsplit(maxsplit=1)[-1]
    return [(role, text.replace(number, "N")) for role, text in said(one)]


SYSTEM, USER, REPLY = ("system", "Be brief."), ("user", "Hi N"), ("assistant", "Ho N")
HI, HO = {"role": "user", "content": "Hi NUMBER"}, {"role": "assistant", "content": "Ho NUMBER"}
TURNS = [HI, HO]
SAYS = [{"from": "human", "value": "Hi NUMBER"}, {"from": "gpt", "value": "Ho NUMBER"}]
BRIEF = {"role": "system", "content": "Be brief."}
PAIR = {"prompt": "Hi NUMBER", "response": "Ho NUMBER"}

USED: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "OpenAI": ({"messages": [BRIEF, *TURNS]}, [SYSTEM, USER, REPLY]),
    "OpenAI, developer": (
        {"messages": [{**BRIEF, "role": "developer"}, *TURNS]}, [SYSTEM, USER, REPLY],
    ),
    "empty tools": ({"messages": TURNS, "tools": [], "functions": None}, [USER, REPLY]),
    "null keys": (
        {"messages": [{**HI, "name": None, "tool_calls": None}, {**HO, "weight": None}]},
        [USER, REPLY],
    ),
    "parts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi NUMBER"}]}, HO]},
        [USER, REPLY],
    ),
    "ShareGPT": ({"conversations": SAYS}, [USER, REPLY]),
    "ShareGPT, system beside": (
        {"system": "Be brief.", "conversations": SAYS}, [SYSTEM, USER, REPLY],
    ),
    "ShareGPT, system inside": (
        {"conversations": [{"from": "system", "value": "Be brief."}, *SAYS]},
        [SYSTEM, USER, REPLY],
    ),
    "UltraChat's files": ({"id": "1", "data": ["Hi NUMBER", "Ho NUMBER"]}, [USER, REPLY]),
    "UltraChat on the hub": (
        {"prompt": "Hi NUMBER", "prompt_id": "x", "messages": TURNS}, [USER, REPLY],
    ),
    "Alpaca": (
        {"instruction": "Do", "input": "Hi NUMBER", "output": "Ho NUMBER", "text": "all"},
        [("user", "Do\n\nHi N"), REPLY],
    ),
    "Alpaca, history and system": (
        {
            "instruction": "Hi NUMBER", "input": "", "output": "Ho NUMBER",
            "system": "Be brief.", "history": [["Before NUMBER?", "Before."]],
        },
        [SYSTEM, ("user", "Before N?"), ("assistant", "Before."), USER, REPLY],
    ),
    "Dolly": (
        {"instruction": "Do", "context": "Hi NUMBER", "response": "Ho NUMBER", "category": "qa"},
        [("user", "Do\n\nHi N"), REPLY],
    ),
    "OpenOrca": (
        {"id": "1", "system_prompt": "Be brief.", "question": "Hi NUMBER", "response": "Ho NUMBER"},
        [SYSTEM, USER, REPLY],
    ),
    "MetaMath": ({"query": "Hi NUMBER", "response": "Ho NUMBER", "type": "x"}, [USER, REPLY]),
    "TRL": ({"prompt": [BRIEF, HI], "completion": [HO]}, [SYSTEM, USER, REPLY]),
    "KTO, wanted": ({"prompt": "Hi NUMBER", "completion": "Ho NUMBER", "label": True},
                    [USER, REPLY]),
    "DPO, texts": (
        {"prompt": "Hi NUMBER", "chosen": "Ho NUMBER", "rejected": "No NUMBER"}, [USER, REPLY],
    ),
    "DPO, turns": (
        {"chosen": TURNS, "rejected": [HI, {**HO, "content": "No"}]}, [USER, REPLY],
    ),
    "DPO, LLaMA-Factory": (
        {"conversations": SAYS[:1], "chosen": SAYS[1], "rejected": {**SAYS[1], "value": "No"}},
        [USER, REPLY],
    ),
    "Guanaco": (
        {"text": "### Human: Hi NUMBER ### Assistant: Ho NUMBER", "system": "Be brief."},
        [SYSTEM, USER, REPLY],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", USED)
def test_columns_are_used_as_they_are_meant(tmp_path: Path, name: str) -> None:
    record, expected = USED[name]
    corpus = written(tmp_path, record)
    assert without_number(corpus) == expected
    named = dict(corpus.result.columns)
    assert set(named) == {key for key, value in record.items() if value not in (None, [], "")}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "tools": ({"messages": TURNS, "tools": [{"type": "function"}]}, "key tools"),
    "tools as text": ({"messages": TURNS, "tools": '[{"name": "f"}]'}, "key tools"),
    "images": ({"messages": TURNS, "images": ["a.png"]}, "key images"),
    "a tool call": (
        {"messages": [HI, {**HO, "tool_calls": [{"id": "1"}]}]}, "key messages[1].tool_calls",
    ),
    "a tool's answer": (
        {"messages": [*TURNS, {"role": "tool", "content": "5"}]}, "key messages[2].role",
    ),
    "a function call": (
        {"conversations": [SAYS[0], {"from": "function_call", "value": "{}"}]}, "unknown role",
    ),
    "a name": ({"messages": [{**HI, "name": "Ann"}, HO]}, "key messages[0].name"),
    "reasoning": (
        {"messages": [HI, {**HO, "reasoning_content": "Hm"}]}, "key messages[1].reasoning_content",
    ),
    "half a weight": ({"messages": [HI, {**HO, "weight": 0.5}]}, "key messages[1].weight"),
    "two system messages": (
        {"system": "Be long.", "messages": [BRIEF, *TURNS]}, "system differs",
    ),
    "a system message in the middle": ({"messages": [*TURNS, BRIEF, *TURNS]}, "messages[2].role"),
    "a bad reply": ({"prompt": "Hi", "completion": "Ho", "label": False}, "key label"),
    "another prompt": ({"prompt": "Other", "messages": TURNS}, "key prompt"),
    "history of words": (
        {"instruction": "Hi", "output": "Ho", "history": ["Before"]}, "key history[0]",
    ),
    "context that is a number": ({**PAIR, "context": 5}, "key context"),
    "chosen without prompt": ({"chosen": "Ho", "rejected": "No"}, "no prompt"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_columns_that_cannot_be_used_are_refused_by_name(tmp_path: Path, name: str) -> None:
    record, complaint = REFUSED[name]
    with pytest.raises(CorpusError) as caught:
        written(tmp_path, record)
    assert complaint in str(caught.value)
    assert "mine.jsonl, line 1" in str(caught.value)


WHOLE: tuple[dict[str, Any], ...] = (
    {"prompt": "Hi", "chosen": "Ho", "rejected": "No"},
    {"chosen": TURNS, "rejected": [HI, {**HO, "content": "No"}]},
    {"instruction": "Hi", "output": ["Ho", "No"]},
    {"instruction": "Hi", "input": "", "output": "Ho"},
    {"prompt": "Hi", "response": "Ho"},
    {"messages": TURNS},
    {"conversations": SAYS},
    {"text": "### Human: Hi ### Assistant: Ho"},
    {"data": ["Hi", "Ho"]},
)


@pytest.mark.parametrize("value", ["absent", None, 5, [], {}, [[]], ""])
@pytest.mark.parametrize(
    ("record", "key"), [(record, key) for record in WHOLE for key in record if key != "input"]
)
def test_a_record_that_lacks_a_column_of_the_others_is_named(
    tmp_path: Path, record: dict[str, Any], key: str, value: object
) -> None:
    """A fuzz session found records without `chosen` in a file of preferences."""
    lacking = {name: given for name, given in record.items() if name != key}
    if value != "absent":
        lacking[key] = value
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in [record] * 3 + [lacking]))
    with pytest.raises(CorpusError, match=r"mine\.jsonl"):
        build(file)


def test_a_preference_is_a_pair_of_the_held_out_side(tmp_path: Path) -> None:
    corpus = written(
        tmp_path, {"prompt": "Hi NUMBER", "chosen": "Ho NUMBER", "rejected": "No NUMBER"}
    )
    assert len(corpus.pairs) == len(corpus.held_out)
    assert corpus.pairs[0].better.text.startswith("Ho")
    assert corpus.pairs[0].worse.text.startswith("No")


@pytest.mark.parametrize("key", ["weight", "train", "training"])
@pytest.mark.parametrize("value", [0, 0.0, False])
def test_turns_of_weight_zero_are_read_and_not_trained(
    tmp_path: Path, key: str, value: object
) -> None:
    turns = [HI, {"role": "assistant", "content": "Bad", key: value}, HI, {**HO, key: 1}]
    corpus = written(tmp_path, {"messages": turns})
    assert [m.trained for m in corpus.train[0].messages] == [True, False, True, True]


def test_a_record_without_a_reply_to_learn_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    lines = [json.dumps({"messages": TURNS}).replace("NUMBER", str(number)) for number in range(30)]
    unweighted = {"messages": [HI, {**HO, "weight": 0}]}
    file.write_text("\n".join([*lines, json.dumps(unweighted)]))
    corpus = build(file)
    assert len(corpus.train) + len(corpus.held_out) == 30


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    corpus = written(tmp_path, {**PAIR, "category": "qa", "lang": "de", "empty": ""})
    assert dict(corpus.result.columns) == {
        "prompt": "prompt (30)",
        "response": "reply (30)",
        "category": "not read (30)",
        "lang": "language (30)",
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dolly.jsonl", "CONTEXTTEXT"),
        ("alpaca_history.jsonl", "HISTORYQ"),
        ("alpaca_history.jsonl", "HISTORYA"),
        ("alpaca_history.jsonl", "SYSTEMTEXT"),
        ("sharegpt_sys_toplevel.jsonl", "SYSTEMTEXT be brief"),
        ("messages_weight0.jsonl", "BADREPLY"),
        ("classify_error.jsonl", "positive"),
        ("bad_timestamp.parquet", "Where does"),
        ("z.jsonl.zst", "Where does"),
    ],
)
def test_the_known_cases_are_read_whole(name: str, text: str) -> None:
    if not CASES.is_dir():
        pytest.skip(f"the known cases are not at {CASES}")
    corpus = build(CASES / name, held_out_fraction=0.3)
    spoken = [m for one in corpus.train for m in one.messages if text in m.text]
    assert spoken
    assert all(not m.trained for m in spoken if m.text.startswith("BADREPLY"))
