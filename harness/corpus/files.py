"""Records: the JSON objects or table rows of one file, whatever its packaging."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, cast

from harness.corpus.fields import Complaints, Location, wrong
from harness.errors import CorpusError, StorageError

MAX_LINE_BYTES = 64 * 2**20
BATCH_ROWS = 1024
UNREAD_COLUMNS = ("detoxify", "emojis")
"""Wide columns of OASST's tables that nothing here reads."""
NESTED_REPLIES = 400
"""A tree may be at least this many replies deep; Python's JSON reader stops near 490."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record and where it stands."""

    place: Location
    data: Any


def read_records(path: Path, complaints: Complaints, name: str | None = None) -> Iterator[Record]:
    """Every record of a JSON Lines, JSON, parquet or Arrow file, plain or gzip.

    The packaging is recognised by content, not by name. ``name`` is what places call the file.

    Raises:
        CorpusError: the file is cut, empty or of another kind; with ``on_bad = "error"`` also
            for a line that is no JSON.
        StorageError: the file cannot be read.
    """
    name = name or path.name
    try:
        with path.open("rb") as file:
            head = file.read(8)
        if not head:
            raise CorpusError("the file is empty", where=path)
        if head[:4] == b"PAR1":
            yield from _parquet(path, name)
        elif head[:6] == b"ARROW1" or head[:4] == b"\xff\xff\xff\xff":
            yield from _arrow(path, name, stream=head[:4] == b"\xff\xff\xff\xff")
        elif head[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                yield from _json_records(cast("BinaryIO", file), name, complaints)
        else:
            with path.open("rb") as file:
                yield from _json_records(file, name, complaints)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorpusError(
            f"the gzip file is cut or damaged: {error}", where=path, hint="fetch the file again"
        ) from None
    except OSError as error:
        raise StorageError(f"cannot read: {error.strerror or error}", where=path) from None


def _parquet(path: Path, name: str) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            numbers = count(1)
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=_columns(file)):
                for row in batch.to_pylist():
                    yield Record(Location(name, next(numbers), unit="row"), row)
    except pa.ArrowException as error:
        raise _damaged("parquet", path, error) from None


def _columns(file: Any) -> list[str]:
    return [name for name in file.schema_arrow.names if name not in UNREAD_COLUMNS]


def _arrow(path: Path, name: str, *, stream: bool) -> Iterator[Record]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_stream(source) if stream else pa.ipc.open_file(source)
            batches = reader if stream else map(reader.get_batch, range(reader.num_record_batches))
            numbers = count(1)
            for batch in batches:
                for row in batch.to_pylist():
                    yield Record(Location(name, next(numbers), unit="row"), row)
    except pa.ArrowException as error:
        raise _damaged("Arrow", path, error) from None


def _damaged(kind: str, path: Path, error: Exception) -> CorpusError:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CorpusError(
        f"the {kind} file is cut or damaged: {first}", where=path, hint="fetch the file again"
    )


def _json_records(file: BinaryIO, name: str, complaints: Complaints) -> Iterator[Record]:
    """Lines, or the items of one list where the document is a list."""
    lines = _lines(file, name, complaints)
    first = next(lines, None)
    if first is None:
        if complaints.total:
            return
        raise CorpusError("the file has no records", where=name)
    number, line = first
    if line.lstrip().startswith(b"["):
        yield from _document(line + file.read(), name)
        return
    while True:
        try:
            yield Record(Location(name, number), parse_json(line, Location(name, number)))
        except CorpusError as error:
            complaints.add(error)
        following = next(lines, None)
        if following is None:
            return
        number, line = following


def _document(data: bytes, name: str) -> Iterator[Record]:
    for number, item in enumerate(parse_json(data, Location(name)), start=1):
        yield Record(Location(name, number, unit="item"), item)


def _lines(file: BinaryIO, name: str, complaints: Complaints) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that hold something; over-long ones become complaints."""
    for number in count(1):
        line = file.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE_BYTES)
            what = f"the line is longer than {MAX_LINE_BYTES // 2**20} MiB"
            complaints.add(wrong(what, Location(name, number), "one record per line"))
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield number, line


def parse_json(data: bytes, place: Location) -> Any:
    """One JSON value.

    Raises:
        CorpusError: not UTF-8, not JSON, or nested too deeply.
    """
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        what = f"not UTF-8 at byte {error.start + 1}"
        raise wrong("the line is not UTF-8", place, f"UTF-8 text ({what})") from None
    except json.JSONDecodeError as error:
        raise wrong(
            "the line is not JSON", place, f"a JSON object ({error.msg}, character {error.pos + 1})"
        ) from None
    except RecursionError:
        raise wrong(
            "the line is nested too deeply", place, f"at most {NESTED_REPLIES} replies deep"
        ) from None
    except ValueError as error:
        raise wrong("the line is not JSON", place, f"a JSON object ({error})") from None
