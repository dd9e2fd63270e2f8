"""A corpus format added from outside: a package with one object and one entry point."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.corpus.corpus import build_corpus
from harness.corpus.formats import format_names, recognise
from harness.errors import UnknownName, UserError
from harness.records.store import RunStore
from harness.runs.supervise import supervise
from harness.spec.suite import CorpusSpec
from tests.runs.small_run import Heard, make_small

PACKAGE = '''
"""Questions: {"q": question, "a": answer}, as a quiz writes them."""

from harness.corpus.fields import get_text
from harness.corpus.threads import Thread, Turn, thread_reader
from harness.corpus.trees import Format


def thread(data, place):
    said = {"user": get_text(data, "q", place), "assistant": get_text(data, "a", place)}
    turns = [Turn(role, text) for role, text in said.items()]
    return Thread(turns, uses={"q": "prompt", "a": "reply"})


QUIZ = Format(
    'questions and answers: {"q": …, "a": …}',
    lambda data: "q" in data and "a" in data,
    thread_reader(thread),
)
'''


def install(folder: Path, points: str) -> None:
    """A package as pip would leave it: its module, and its entry points beside it."""
    (folder / "quiz_format.py").write_text(PACKAGE)
    info = folder / "quiz_format-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: quiz-format\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[finetune_harness.formats]\n{points}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages that this process and its children see."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    inherited = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), inherited])))
    yield folder
    sys.modules.pop("quiz_format", None)


@pytest.fixture
def quiz(tmp_path: Path) -> Path:
    path = tmp_path / "quiz.jsonl"
    lines = [{"q": f"What is number {n}?", "a": f"It is {n}, of course."} for n in range(40)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_format_from_another_package_is_recognised_and_trained_on(
    site: Path, quiz: Path, tmp_path: Path
) -> None:
    install(site, "quiz = quiz_format:QUIZ")
    assert format_names()[0] == "quiz"
    small = make_small(tmp_path / "small", steps=2)
    record = supervise(small.plan(f"corpus.source={quiz}"), RunStore(tmp_path / "runs"), Heard())
    assert record.status == "ok", record.problem
    assert record.corpus is not None
    assert record.corpus.train_conversations + record.corpus.held_out_conversations == 40
    assert dict(record.corpus.columns) == {"q": "prompt (40)", "a": "reply (40)"}


def test_it_can_be_forced_by_name_and_says_what_is_missing(site: Path, tmp_path: Path) -> None:
    install(site, "quiz = quiz_format:QUIZ")
    path = tmp_path / "odd.jsonl"
    path.write_text('{"q": "What?"}\n')
    with pytest.raises(UserError, match="a") as caught:
        build_corpus(CorpusSpec(source=str(path), format="quiz"))
    assert "odd.jsonl" in str(caught.value)


def test_without_the_package_the_name_is_unknown(quiz: Path) -> None:
    with pytest.raises(UnknownName, match="unknown corpus format"):
        build_corpus(CorpusSpec(source=str(quiz), format="quiz"))


@pytest.mark.parametrize("point", ["quiz = quiz_format:NOTHING", "quiz = no_module:QUIZ"])
def test_a_package_that_cannot_be_imported_is_named(site: Path, quiz: Path, point: str) -> None:
    install(site, point)
    with pytest.raises(UserError, match="quiz cannot be imported") as caught:
        build_corpus(CorpusSpec(source=str(quiz), format="quiz"))
    assert "repair or remove" in str(caught.value)


def test_the_harness_s_own_names_cannot_be_taken(site: Path) -> None:
    install(site, "chat = quiz_format:QUIZ")
    data: Any = {"messages": []}
    from harness.corpus.fields import Location
    from harness.corpus.files import DataRecord

    name, _ = recognise(iter([DataRecord(Location("x", 1), data)]), "auto")
    assert name == "chat"
    assert format_names().count("chat") == 1
