"""Storage: files are written whole or not at all, and what cannot be read says why and where."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import ClassVar

import pytest

from harness.errors import InvalidFile, StorageError
from harness.spec.schema import Versioned
from harness.spec.storage import (
    DEEPEST,
    check_depth,
    free_bytes,
    read_json,
    read_toml,
    write_bytes,
    write_json,
)


class Note(Versioned):
    """A document of one field."""

    SCHEMA_VERSION: ClassVar[int] = 2
    MIGRATIONS = {1: lambda old: {"text": old["words"]}}  # noqa: RUF012
    schema_version: int = 2
    text: str


def nested(depth: int) -> object:
    found: object = 1
    for place in range(depth):
        found = [found] if place % 2 else {"inner": found}
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "note.json"


def test_what_was_written_is_read_equal(path: Path) -> None:
    write_json(path, Note(text="ä\n"))
    assert read_json(path, Note) == Note(text="ä\n")


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    write_bytes(tmp_path / "deep" / "file", b"one")
    write_bytes(tmp_path / "deep" / "file", b"two")
    assert [found.name for found in (tmp_path / "deep").iterdir()] == ["file"]
    assert (tmp_path / "deep" / "file").read_bytes() == b"two"
    assert stat.S_IMODE((tmp_path / "deep" / "file").stat().st_mode) == 0o644


def test_a_file_that_cannot_be_written_keeps_its_old_content(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(StorageError, match="cannot write") as caught:
        write_bytes(target, b"x")
    assert "free some space" in str(caught.value)
    assert list(tmp_path.iterdir()) == [target], "no half-written file beside it"


def test_a_document_of_an_older_version_is_brought_up_to_date(path: Path) -> None:
    path.write_text('{"schema_version": 1, "words": "old"}', encoding="utf-8")
    assert read_json(path, Note).text == "old"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not a whole JSON document"),
        ('{"schema_version": 2, "text": "cu', "not a whole JSON document"),
        ('{"schema_version": 2}', "not a valid note"),
        ('{"schema_version": 2, "text": "a", "more": 1}', "not a valid note"),
        ('{"schema_version": 3, "text": "a"}', "schema version 3"),
        ("[]", "schema version"),
        ("[" * 2000, "not a whole JSON document"),
    ],
)
def test_what_is_no_document_says_why(path: Path, content: str, words: str) -> None:
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidFile, match=words) as caught:
        read_json(path, Note)
    assert str(path) in str(caught.value)


def test_a_changed_document_is_noticed(path: Path) -> None:
    write_json(path, Note(text="abc"))
    path.write_text(path.read_text(encoding="utf-8").replace("abc", "abd"), encoding="utf-8")
    with pytest.raises(InvalidFile, match="changed since it was written"):
        read_json(path, Note)


def test_a_file_that_is_not_there_is_no_invalid_file(path: Path) -> None:
    for read in (lambda: read_json(path, Note), lambda: read_toml(path)):
        with pytest.raises(StorageError, match="cannot read: No such file"):
            read()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a = ", "not a TOML file"),
        (b"a = 1\na = 2\n", "line 2"),
        (b"\xff\xfe", "not a TOML file"),
        (b"a = " + b"[" * 5000, "nested too deeply"),
        (b"a = " + b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), "nested too deeply"),
    ],
)
def test_what_is_no_toml_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "suite.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidFile, match=words) as caught:
        read_toml(path)
    assert "suite.toml" in str(caught.value)


def test_toml_is_plain_data(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('a = 1\n[b]\nc = ["x"]\n', encoding="utf-8")
    assert read_toml(path) == {"a": 1, "b": {"c": ["x"]}}


def test_the_deepest_that_may_be_nested_is_the_deepest() -> None:
    check_depth(nested(DEEPEST), "here")
    with pytest.raises(InvalidFile, match="nested too deeply") as caught:
        check_depth(nested(DEEPEST + 1), "here")
    assert f"at most {DEEPEST}" in str(caught.value)


def test_free_bytes_are_those_of_the_disk_on_which_a_file_would_lie(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) > 0
    assert free_bytes(tmp_path / "not" / "yet" / "there") == pytest.approx(
        free_bytes(tmp_path), rel=0.05
    )
