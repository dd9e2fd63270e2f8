"""Broken files: each ends in an error with file, line and key, or is skipped and counted."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.corpus.corpus import build_corpus
from harness.errors import CorpusError
from harness.spec.suite import CorpusSpec

GOOD_TREES = 30


def tree(number: int) -> dict[str, Any]:
    """A good OASST tree of four messages."""

    def message(name: str, role: str, parent: str | None, *replies: Any, **more: Any) -> Any:
        return {
            "message_id": f"{number}-{name}",
            "parent_id": parent and f"{number}-{parent}",
            "text": f"Text {name} of tree {number}",
            "role": role,
            "lang": "en",
            "review_result": True,
            "deleted": False,
            "rank": None,
            "synthetic": False,
            "labels": {"quality": {"value": 0.5, "count": 3}},
            "replies": list(replies),
            **more,
        }

    best = message("b", "assistant", "a", rank=0)
    worse = message("c", "assistant", "a", message("d", "prompter", "c"), rank=1)
    return {
        "message_tree_id": f"{number}-a",
        "tree_state": "ready_for_export",
        "prompt": message("a", "prompter", None, best, worse),
    }


def good_lines() -> list[bytes]:
    return [json.dumps(tree(number)).encode() for number in range(GOOD_TREES)]


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """One more tree, broken by ``change``."""
    broken = tree(99)
    change(broken)
    return json.dumps(broken).encode()


def setting(*path: Any, value: Any) -> bytes:
    """One more tree with ``value`` at ``path``."""

    def change(target: Any) -> None:
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value

    return changed(change)


def without(*path: Any) -> bytes:
    """One more tree that lacks the key at ``path``."""

    def change(target: Any) -> None:
        for key in path[:-1]:
            target = target[key]
        del target[path[-1]]

    return changed(change)


REPLY = ("prompt", "replies", 0)
RATING = ("prompt", "labels")

LINES: dict[str, tuple[bytes, str]] = {
    "bad UTF-8": (b'{"prompt": "\xff\xfe"}', "not UTF-8"),
    "UTF-16": (json.dumps(tree(99)).encode("utf-16"), "not UTF-8"),
    "Latin-1": ('{"prompt": "\u00e9"}'.encode("latin-1"), "not UTF-8"),
    "NUL bytes": (b"\x00" * 64, "not JSON"),
    "a NUL byte in a string": (b'{"prompt": "a\x00b"}', "not JSON"),
    "an escaped NUL": (setting("prompt", "text", value="a\u0000b"), "key prompt.text"),
    "a lone high surrogate": (setting("prompt", "text", value="a\ud83d"), "key prompt.text"),
    "a lone low surrogate": (setting(*REPLY, "text", value="\udc00"), "key prompt.replies[0].text"),
    "a surrogate in an id": (setting(*REPLY, "message_id", value="\ud800"), "message_id"),
    "half a line": (json.dumps(tree(99)).encode()[:200], "not JSON"),
    "two objects on a line": (json.dumps(tree(98)).encode() * 2, "not JSON"),
    "single quotes": (str(tree(99)).encode(), "not JSON"),
    "a word": (b"hello", "not JSON"),
    "a number": (b"3", "record is of type int"),
    "null": (b"null", "record is of type null"),
    "a list": (b'["prompt"]', "record is of type list"),
    "deep nesting": (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested too deeply"),
    "deep lists": (b"[" * 100_000, "nested too deeply"),
    "no prompt": (without("prompt"), "key prompt"),
    "prompt is text": (setting("prompt", value="Hi"), "key prompt"),
    "tree id is a number": (setting("message_tree_id", value=7), "key message_tree_id"),
    "tree state is a list": (setting("tree_state", value=["ready"]), "key tree_state"),
    "no text": (without("prompt", "text"), "key prompt.text"),
    "text is null": (setting(*REPLY, "text", value=None), "key prompt.replies[0].text"),
    "text is a list": (setting("prompt", "text", value=["Hi"]), "key prompt.text"),
    "text is empty": (setting(*REPLY, "text", value=""), "text is empty"),
    "text is blank": (setting("prompt", "text", value=" \n\u3000"), "text is empty"),
    "no role": (without(*REPLY, "role"), "key prompt.replies[0].role"),
    "unknown role": (setting(*REPLY, "role", value="moderator"), "unknown role"),
    "role is a number": (setting("prompt", "role", value=1), "key prompt.role"),
    "the assistant starts": (setting("prompt", "role", value="assistant"), "starts with"),
    "a reply by the prompter": (setting(*REPLY, "role", value="prompter"), "role of its parent"),
    "no id": (without("prompt", "message_id"), "key prompt.message_id"),
    "id is a number": (setting(*REPLY, "message_id", value=5), "message_id"),
    "id is empty": (setting(*REPLY, "message_id", value=""), "message_id"),
    "an id of another tree": (setting(*REPLY, "message_id", value="0-b"), "occurs twice"),
    "an id of a sibling": (setting(*REPLY, "message_id", value="99-c"), "occurs twice"),
    "a tree again": (json.dumps(tree(0)).encode(), "occurs twice"),
    "parent_id is another message": (setting(*REPLY, "parent_id", value="0-a"), "parent_id is not"),
    "parent_id is a number": (setting(*REPLY, "parent_id", value=1), "key prompt.replies[0].par"),
    "lang is a list": (setting("prompt", "lang", value=["en"]), "key prompt.lang"),
    "rank is text": (setting(*REPLY, "rank", value="best"), "key prompt.replies[0].rank"),
    "rank is negative": (setting(*REPLY, "rank", value=-1), "key prompt.replies[0].rank"),
    "rank is a fraction": (setting(*REPLY, "rank", value=0.5), "key prompt.replies[0].rank"),
    "rank is true": (setting(*REPLY, "rank", value=True), "key prompt.replies[0].rank"),
    "rank is infinite": (setting(*REPLY, "rank", value=float("inf")), "[0].rank"),
    "deleted is text": (setting(*REPLY, "deleted", value="no"), "key prompt.replies[0].deleted"),
    "review is a number": (setting("prompt", "review_result", value=1), "prompt.review_result"),
    "synthetic is text": (setting("prompt", "synthetic", value="yes"), "key prompt.synthetic"),
    "replies is an object": (setting("prompt", "replies", value={}), "key prompt.replies"),
    "a reply is text": (setting("prompt", "replies", value=["Hi"]), "key prompt.replies[0]"),
    "labels is a list": (setting(*RATING, value=[1]), "key prompt.labels"),
    "a label is a number": (setting(*RATING, "quality", value=1), "key prompt.labels.quality"),
    "a label is NaN": (
        setting(*RATING, "quality", "value", value=float("nan")), "key prompt.labels.quality.value"
    ),
    "a label is text": (setting(*RATING, "quality", "value", value="1"), "quality.value"),
    "label lists differ": (setting(*RATING, value={"name": ["a", "b"], "value": [1]}), "differ"),
    "a label name is a number": (setting(*RATING, value={"name": [1], "value": [1]}), "labels.n"),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_a_broken_line_is_named_or_skipped_and_counted(tmp_path: Path, name: str) -> None:
    line, complaint = LINES[name]
    path = tmp_path / "broken.trees.jsonl"
    path.write_bytes(b"\n".join([*good_lines(), line, b""]))
    with pytest.raises(CorpusError) as caught:
        build_corpus(CorpusSpec(source=str(path), held_out_fraction=0.3))
    message = str(caught.value)
    assert complaint in message
    assert f"broken.trees.jsonl, line {GOOD_TREES + 1}" in message
    assert 'on_bad = "skip"' in message
    corpus = build_corpus(CorpusSpec(source=str(path), held_out_fraction=0.3, on_bad="skip"))
    first = corpus.result.funnel[0]
    assert first.trees in (GOOD_TREES, GOOD_TREES + 1)
    assert "1 bad records or messages: 1 × " in first.removed
    assert f"line {GOOD_TREES + 1}" in first.removed
    whole = corpus.result.train_conversations + corpus.result.held_out_conversations
    assert whole >= GOOD_TREES


def test_there_are_at_least_forty_broken_lines() -> None:
    assert len(LINES) >= 40


FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "blank lines": (b"\n \n\n", "no records"),
    "a cut gzip file": (gzip.compress(b"\n".join(good_lines()))[:-40], "cut or damaged"),
    "a gzip file with a flipped byte": (
        bytearray(gzip.compress(b"\n".join(good_lines()))), "cut or damaged"
    ),
    "a gzip header alone": (b"\x1f\x8b\x08", "cut or damaged"),
    "a parquet header alone": (b"PAR1", "cut or damaged"),
    "a parquet file without its end": (b"PAR1" + b"\x00" * 500, "cut or damaged"),
    "an Arrow header alone": (b"ARROW1\x00\x00", "cut or damaged"),
    "an Arrow stream cut short": (b"\xff\xff\xff\xff\x10\x00\x00\x00", "cut or damaged"),
    "a JSON list cut short": (b"[" + good_lines()[0], "not JSON"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not UTF-8"),
    "a web page": (b"<!DOCTYPE html>\n<html></html>\n", "not JSON"),
    "other records": (b'{"name": "x"}\n', "not a known conversation format"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("on_bad", ["error", "skip"])
def test_a_broken_file_is_a_clear_error(tmp_path: Path, name: str, on_bad: Any) -> None:
    data, complaint = FILES[name]
    if name.endswith("flipped byte"):
        data = bytearray(data)
        data[len(data) // 2] ^= 0xFF
    path = tmp_path / "broken.data"
    path.write_bytes(data)
    with pytest.raises(CorpusError) as caught:
        build_corpus(CorpusSpec(source=str(path), on_bad=on_bad))
    assert "broken.data" in str(caught.value)
    if on_bad == "error":
        assert complaint in str(caught.value)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "bom.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(good_lines()))
    assert build_corpus(CorpusSpec(source=str(path))).result.funnel[0].trees == GOOD_TREES


def test_a_line_of_100_mb_is_refused_or_skipped(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("wb") as file:
        file.write(b"\n".join(good_lines()) + b'\n{"prompt": "')
        for _ in range(100):
            file.write(b"x" * 2**20)
        file.write(b'"}\n' + json.dumps(tree(100)).encode())
    with pytest.raises(CorpusError, match="longer than 64 MiB") as caught:
        build_corpus(CorpusSpec(source=str(path)))
    assert f"long.jsonl, line {GOOD_TREES + 1}" in str(caught.value)
    first = build_corpus(CorpusSpec(source=str(path), on_bad="skip")).result.funnel[0]
    assert first.trees == GOOD_TREES + 1
    assert "longer than 64 MiB" in first.removed


@pytest.mark.parametrize("policy", ["best_path", "all_paths", "top_paths", "one_reply"])
def test_a_tree_of_ten_thousand_replies_is_read(tmp_path: Path, policy: Any) -> None:
    wide = tree(50)
    reply = wide["prompt"]["replies"][0]
    for number in range(10_000):
        one = copy.deepcopy(reply)
        one.update(message_id=f"wide-{number}", text=f"Reply {number}", rank=None)
        wide["prompt"]["replies"].append(one)
    path = tmp_path / "wide.jsonl"
    path.write_bytes(b"\n".join([*good_lines(), json.dumps(wide).encode()]))
    corpus = build_corpus(CorpusSpec(source=str(path), policy=policy))
    assert corpus.result.funnel[0].messages == GOOD_TREES * 4 + 10_004


def test_a_flat_file_of_a_chain_ten_thousand_deep_is_read(tmp_path: Path) -> None:
    rows = [
        {
            "message_id": str(number),
            "parent_id": str(number - 1) if number else None,
            "text": f"Turn {number}",
            "role": "assistant" if number % 2 else "prompter",
        }
        for number in range(10_000)
    ]
    path = tmp_path / "deep.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(CorpusError, match=r"no (held-out|training) conversations are left"):
        build_corpus(CorpusSpec(source=str(path)))


def _flat(*rows: tuple[str, str | None, str]) -> bytes:
    good = [("r", None, "prompter"), ("s", "r", "assistant")]
    return b"\n".join(
        json.dumps({"message_id": a, "parent_id": b, "role": role, "text": f"Text {a}"}).encode()
        for a, b, role in [*good, *rows]
    )


@pytest.mark.parametrize(
    ("rows", "complaint", "line"),
    [
        ([("x", "x", "prompter")], "parents form a cycle", 3),
        ([("x", "y", "prompter"), ("y", "x", "assistant")], "parents form a cycle", 3),
        ([("s", "r", "assistant")], "message id occurs twice", 3),
        ([("x", None, "assistant")], "a tree starts with the assistant", 3),
        ([("x", "s", "assistant")], "a message has the role of its parent", 3),
    ],
)
def test_a_flat_file_that_is_no_forest(
    tmp_path: Path, rows: list[tuple[str, str | None, str]], complaint: str, line: int
) -> None:
    path = tmp_path / "flat.jsonl"
    path.write_bytes(_flat(*rows))
    with pytest.raises(CorpusError, match=complaint) as caught:
        build_corpus(CorpusSpec(source=str(path)))
    assert f"flat.jsonl, line {line}, key" in str(caught.value)


def test_orphans_are_counted_with_all_below_them(tmp_path: Path) -> None:
    path = tmp_path / "flat.jsonl"
    orphans = _flat(("x", "gone", "assistant"), ("y", "x", "prompter"))
    path.write_bytes(orphans + b"\n" + _flat(*()).replace(b'"r"', b'"r2"').replace(b'"s"', b'"s2"'))
    with pytest.raises(CorpusError) as caught:
        build_corpus(CorpusSpec(source=str(path), tree_states=("none",), held_out_fraction=0.001))
    assert "2 messages below a parent that is not in the data" in str(caught.value)


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        ({"messages": "Hi"}, "key messages"),
        ({"messages": []}, "no reply"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, "no reply"),
        ({"messages": [{"role": "tool", "content": "Hi"}]}, "unknown role"),
        ({"messages": [{"content": "Hi"}]}, "key messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "key messages[0].content"),
        ({"messages": [{"role": "assistant", "content": "Hi"}] * 2}, "do not alternate"),
        ({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant"}]}, "[1].content"),
        ({"messages": ["Hi", "Ho"]}, "key messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "content[0].text"),
        ({"text": "### Human: Hi"}, "no reply"),
        ({"text": "### Human: Hi### Human: Ho"}, "do not alternate"),
        ({"text": "### Human: ### Assistant: Ho"}, "a turn is empty"),
        ({"prompt": "Hi", "response": " "}, "a turn is empty"),
        ({"instruction": "Hi", "output": [5]}, "key output"),
        ({"instruction": "Hi", "output": []}, "no reply"),
    ],
)
def test_a_broken_chat_record_names_its_key(
    tmp_path: Path, record: dict[str, Any], complaint: str
) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps(record))
    with pytest.raises(CorpusError) as caught:
        build_corpus(CorpusSpec(source=str(path)))
    assert complaint in str(caught.value)
    assert "chat.jsonl, line 1" in str(caught.value)


def test_a_conversation_of_four_hundred_nested_turns_is_read(tmp_path: Path) -> None:
    node: dict[str, Any] | None = None
    for number in reversed(range(400)):
        node = {
            "message_id": f"deep-{number}",
            "text": f"Turn {number}",
            "role": "assistant" if number % 2 else "prompter",
            "replies": [node] if node else [],
        }
    path = tmp_path / "deep.jsonl"
    path.write_bytes(b"\n".join([*good_lines(), json.dumps({"prompt": node}).encode()]))
    corpus = build_corpus(CorpusSpec(source=str(path)))
    assert max(len(one.messages) for one in (*corpus.train, *corpus.held_out)) == 400
