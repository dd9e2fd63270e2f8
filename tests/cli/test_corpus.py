"""`corpus` shows the data of a suite; mistakes are said before anything is loaded."""

from __future__ import annotations

import pytest

from tests.cli.terminal import refused, shown
from tests.runs.small_run import Small


def test_corpus_shows_steps_and_conversations(small: Small) -> None:
    text = shown("corpus", "--suite", str(small.suite), "--samples", "1")
    assert "trees" in text
    assert "sleep" in text


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("adapter.r=3", ["adapter", "does not affect a corpus"]),
        ("training=5", ["training: ", "found 5", "--set training=5"]),
        ("corpus.source=nowhere.jsonl", ["no such corpus"]),
    ],
)
def test_a_mistake_is_explained(small: Small, setting: str, words: list[str]) -> None:
    message = refused("corpus", "--suite", str(small.suite), "--set", setting)
    assert all(word in message for word in words), message
