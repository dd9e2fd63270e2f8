"""Packaging: compressed, one-line and damaged files are read whole, or refused as what they are."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from harness.corpus import files
from harness.corpus.corpus import Corpus, build_corpus
from harness.errors import CorpusError
from harness.spec.suite import CorpusSpec

CASES = Path(__file__).parents[3] / "shared" / "cases" / "corpus"
DAMAGED = ("damaged-1.arrow", "damaged-2.arrow", "flip-1.parquet", "type-1.parquet")


def arrow_bytes(data: bytes, compression: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, compression) as stream:
        stream.write(data)
    return bytes(sink.getvalue())


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: arrow_bytes(data, "zstd"),
    "lz4": lambda data: arrow_bytes(data, "lz4"),
}


def records(count: int = 40, reply: str = "It is blue.") -> list[dict[str, Any]]:
    return [{"prompt": f"What colour is number {n}?", "response": reply} for n in range(count)]


def lines(count: int = 40) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records(count)).encode()


def built(path: Path, **more: Any) -> Corpus:
    return build_corpus(CorpusSpec(source=str(path), **more))


def conversations(found: Corpus) -> int:
    return len(found.train) + len(found.held_out)


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("suffix", ["", ".jsonl"])
def test_compressed_lines_are_read_whatever_they_are_called(
    kind: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"data{suffix or '.jsonl.' + kind}"
    path.write_bytes(PACKERS[kind](lines()))
    assert conversations(built(path)) == 40
    alone = tmp_path / "folder"
    alone.mkdir()
    path.rename(alone / f"data.jsonl.{kind}")
    assert conversations(built(alone)) == 40


@pytest.mark.parametrize("on_bad", ["error", "skip"])
@pytest.mark.parametrize("kind", PACKERS)
def test_a_cut_compressed_file_is_damaged_whatever_is_skipped(
    kind: str, on_bad: str, tmp_path: Path
) -> None:
    packed = PACKERS[kind](lines(4000))
    path = tmp_path / f"data.jsonl.{kind}"
    path.write_bytes(packed[: len(packed) * 2 // 3])
    with pytest.raises(CorpusError, match=r"cut or damaged") as caught:
        built(path, on_bad=on_bad)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("on_bad", ["error", "skip"])
@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_tables_are_named(name: str, on_bad: str) -> None:
    if not CASES.is_dir():
        pytest.skip(f"the known cases are not at {CASES}")
    with pytest.raises(CorpusError) as caught:
        built(CASES / name, on_bad=on_bad)
    assert name in str(caught.value)


@pytest.mark.parametrize("on_bad", ["error", "skip"])
def test_a_list_on_one_line_may_be_longer_than_a_line(
    on_bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 1000)
    path = tmp_path / "list.json"
    path.write_text(json.dumps(records()))
    assert path.stat().st_size > 1000
    assert conversations(built(path, on_bad=on_bad)) == 40


@pytest.mark.slow
def test_a_list_on_one_line_over_64_mib_is_read(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    long = [{**record, "response": f"{index} " + "blue " * 400_000}
            for index, record in enumerate(records(40))]  # fmt: skip
    path.write_text(json.dumps(long))
    assert path.stat().st_size > files.MAX_LINE_BYTES
    assert conversations(built(path, on_bad="skip")) == 40


@pytest.mark.parametrize("name", ["more.csv", "more.tsv", "more.zip", "deep/more.tar.gz"])
def test_a_folder_with_data_that_cannot_be_read_is_refused_by_name(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "data.jsonl").write_bytes(lines())
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("prompt,response\na,b\n")
    with pytest.raises(CorpusError, match="cannot be read") as caught:
        built(tmp_path)
    assert name in str(caught.value)


@pytest.mark.parametrize(("kind", "mark"), [("csv", ","), ("TSV", "\t")])
def test_a_sheet_is_refused_with_the_call_that_makes_it_readable(
    kind: str, mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"my chats.{kind}"
    rows = [mark.join((r["prompt"], r["response"])) for r in records(40)]
    path.write_text("\n".join([mark.join(("prompt", "response")), *rows]))
    with pytest.raises(CorpusError, match=f"a .{kind} file is not read") as caught:
        built(path)
    assert ".parquet, .arrow, .jsonl" in str(caught.value)
    call = str(caught.value).partition("convert it: ")[2].strip()
    subprocess.run([sys.executable, "-c", f"import pandas; {call}"], check=True)
    assert conversations(built(tmp_path / "my chats.parquet")) == 40


def test_what_is_no_data_lies_beside_data_without_harm(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_bytes(lines())
    (tmp_path / "README.md").write_text("about this data")
    (tmp_path / ".cache.csv").write_text("hidden")
    assert conversations(built(tmp_path)) == 40
