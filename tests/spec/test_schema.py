"""Types are strict and frozen; documents are versioned and written whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import ValidationError

from harness.errors import InvalidFile, StorageError
from harness.spec.digests import canonical_json, fingerprint
from harness.spec.schema import Frozen, Versioned, parse
from harness.spec.storage import read_json, read_toml, write_json


class Leaf(Frozen):
    numbers: tuple[int, ...] = ()
    rate: float = 1.0


class Document(Versioned):
    SCHEMA_VERSION: ClassVar[int] = 3
    schema_version: int = 3
    name: str
    leaf: Leaf = Leaf()


def test_a_toml_list_is_accepted_for_a_tuple() -> None:
    assert parse(Leaf, {"numbers": [1, 2]}, where="x").numbers == (1, 2)


def test_a_whole_number_is_accepted_for_a_float() -> None:
    assert parse(Leaf, {"rate": 2}, where="x").rate == 2.0


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"name": "a", "nmae": "b"}, "nmae: unknown key"),
        ({}, "name: missing"),
        ({"name": 3}, "name: Input should be a valid string, found 3"),
        ({"name": "a", "leaf": {"numbers": ["1"]}}, "leaf.numbers.0: Input should be a valid int"),
        ({"name": "a", "leaf": {"numbers": 1}}, "leaf.numbers: Input should be a valid"),
        ({"name": "a", "leaf": {"rate": "1.0"}}, "leaf.rate: Input should be a valid number"),
        ({"name": "a", "leaf": {"rate": float("nan")}}, "leaf.rate: Input should be a finite"),
    ],
)
def test_what_does_not_fit_is_named_by_file_key_and_value(data: dict, line: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        parse(Document, data, where="some/file.toml")
    assert "some/file.toml" in str(caught.value)
    assert line in str(caught.value)


def test_every_offending_key_is_named_at_once() -> None:
    with pytest.raises(InvalidFile) as caught:
        parse(Document, {"nmae": "b", "leaf": {"rate": "fast"}}, where="x")
    assert all(key in str(caught.value) for key in ("nmae", "name: missing", "leaf.rate"))


def test_documents_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Leaf().rate = 2.0  # type: ignore[misc]


def test_a_toml_syntax_error_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text('description = "x"\nquantization = nf4\n')
    with pytest.raises(InvalidFile, match="line 2") as caught:
        read_toml(path)
    assert str(path) in str(caught.value)


def test_a_binary_file_is_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "weights.toml"
    path.write_bytes(b"\x80\xff\x00GGUF")
    with pytest.raises(InvalidFile, match="not a TOML file"):
        read_toml(path)


def test_a_missing_file_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read"):
        read_toml(tmp_path / "absent.toml")


def test_what_is_written_is_read_back_equal(tmp_path: Path) -> None:
    document = Document(name="ä", leaf=Leaf(numbers=(1, 2), rate=0.1))
    write_json(tmp_path / "deep" / "d.json", document)
    assert read_json(tmp_path / "deep" / "d.json", Document) == document


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"schema_version": 3, "name": "a", "le', "not a whole JSON document"),
        ("", "not a whole JSON document"),
        ("[1, 2]", "schema version None"),
        ('{"schema_version": 2, "name": "a"}', "run the variant again"),
        ('{"schema_version": 4, "name": "a"}', "install a newer harness"),
        ('{"schema_version": 3, "name": "a", "extra": 1}', "extra: unknown key"),
    ],
)
def test_a_document_that_is_cut_old_new_or_foreign_is_refused(
    tmp_path: Path, text: str, found: str
) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(InvalidFile, match=found) as caught:
        read_json(path, Document)
    assert str(path) in str(caught.value)


def test_the_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    one = Document.model_validate_json('{"name": "a", "leaf": {"rate": 2, "numbers": []}}')
    two = Document.model_validate_json('{"leaf": {"numbers": [], "rate": 2}, "name": "a"}')
    assert fingerprint(one) == fingerprint(two)
    assert json.loads(canonical_json(one)) == one.model_dump(mode="json")


def test_a_full_disk_leaves_the_old_document_and_no_part_file(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_json(path, Document(name="old"))
    code = (
        "import resource, sys, pathlib\n"
        "from harness.errors import StorageError\n"
        "from harness.spec.storage import write_bytes\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    write_bytes(pathlib.Path(sys.argv[1]), b'x' * 5000)\n"
        "except StorageError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert "cannot write: File too large" in done.stdout
    assert str(path) in done.stdout
    assert read_json(path, Document).name == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["record.json"]


def test_a_folder_that_is_a_file_cannot_be_written_into(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        write_json(tmp_path / "reports" / "record.json", Document(name="a"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_a_storage_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="Permission denied"):
        write_json(tmp_path / "record.json", Document(name="a"))
