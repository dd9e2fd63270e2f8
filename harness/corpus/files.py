"""Files: the records of one data file, whatever its packaging and compression."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, cast

from harness.corpus.fields import Complaints, Location, Unreadable, wrong
from harness.errors import CorpusError, StorageError

MAX_LINE_BYTES = 64 * 2**20
BATCH_ROWS = 1024
PEEKED_BYTES = 1 << 16
UNREAD_COLUMNS = ("detoxify", "emojis")
"""Wide columns of OASST's tables that nothing here reads."""
NESTED_REPLIES = 400
"""A tree may be at least this many replies deep; Python's JSON reader stops near 490."""
DAMAGE = (ValueError, LookupError, TypeError, ArithmeticError, SystemError, MemoryError, OSError)
"""What Arrow raises on damaged bytes, beside its own exceptions."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class DataRecord:
    """One record and where it stands."""

    place: Location
    data: Any


def _zstandard(path: Path) -> BinaryIO:
    return _arrow_stream(path, "zstd")


def _lz4(path: Path) -> BinaryIO:
    return _arrow_stream(path, "lz4")


def _arrow_stream(path: Path, compression: str) -> BinaryIO:
    import pyarrow as pa

    return cast("BinaryIO", pa.input_stream(str(path), compression=compression))


COMPRESSIONS: dict[bytes, tuple[str, Callable[[Path], Any]]] = {
    b"\x1f\x8b": ("gzip", gzip.open),
    b"\x28\xb5\x2f\xfd": ("zstandard", _zstandard),
    b"\x04\x22\x4d\x18": ("lz4", _lz4),
    b"BZh": ("bzip2", bz2.open),
    b"\xfd7zXZ\x00": ("xz", lzma.open),
}
"""First bytes of a compressed JSON file, the compression's name, and what opens it."""
ARCHIVES = {b"PK\x03\x04": "zip", b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!": "rar"}
SUFFIXES = (".gz", ".zst", ".lz4", ".bz2", ".xz")


def read_records(
    path: Path, complaints: Complaints, name: str | None = None
) -> Iterator[DataRecord]:
    """Every record of a JSON Lines, JSON, parquet or Arrow file; JSON may be compressed.

    Packaging and compression are recognised by content, not by name. ``name`` is what places
    call the file.

    Raises:
        CorpusError: the file is cut, empty or of another kind; with ``on_bad = "error"`` also
            for a line that is no JSON.
        StorageError: the file cannot be read.
    """
    name = name or path.name
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise _unreadable(path, error) from None
    if not head:
        raise CorpusError("the file is empty", where=path)
    archive = next((kind for magic, kind in ARCHIVES.items() if head.startswith(magic)), None)
    if archive is not None:
        raise CorpusError(
            f"the file is a {archive} archive",
            where=path,
            expected=f"JSON Lines, JSON, parquet or Arrow; JSON may be {_compression_names()}",
            hint="unpack it and name the file or folder inside",
        )
    if head[:4] == b"PAR1":
        yield from _table("parquet", path, name, _parquet_batches)
    elif head[:6] == b"ARROW1":
        yield from _table("Arrow", path, name, _arrow_file_batches)
    elif head[:4] == b"\xff\xff\xff\xff":
        yield from _table("Arrow", path, name, _arrow_stream_batches)
    else:
        yield from _text(path, name, head, complaints)


def _compression_names() -> str:
    return ", ".join(kind for kind, _ in COMPRESSIONS.values())


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot read: {error.strerror or error}", where=path)


def _damaged(kind: str, where: object, error: BaseException) -> CorpusError:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CorpusError(
        f"the {kind} file is cut or damaged: {first}", where=where, hint="fetch the file again"
    )


def _table(
    kind: str, path: Path, name: str, batches: Callable[[Path], Iterator[Any]]
) -> Iterator[DataRecord]:
    """Rows of a table, batch by batch; damage is an error that says after which row it is."""
    from pyarrow import ArrowException

    number = 0
    source = batches(path)
    while True:
        try:
            batch = next(source, None)
            rows = [] if batch is None else _rows(batch)
        except (ArrowException, *DAMAGE) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise _unreadable(path, error) from None
            where = f"{path}, after row {number}" if number else path
            raise _damaged(kind, where, error) from None
        if batch is None:
            return
        for row in rows:
            number += 1
            yield DataRecord(Location(name, number, unit="row"), row)


def _parquet_batches(path: Path) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        columns = [name for name in file.schema_arrow.names if name not in UNREAD_COLUMNS]
        yield from file.iter_batches(batch_size=BATCH_ROWS, columns=columns)


def _arrow_file_batches(path: Path) -> Iterator[Any]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            yield _checked(reader.get_batch(number))


def _arrow_stream_batches(path: Path) -> Iterator[Any]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        yield from map(_checked, pa.ipc.open_stream(source))


def _checked(batch: Any) -> Any:
    """A batch whose offsets lie inside its buffers; Arrow itself reads wild ones."""
    from pyarrow import ArrowInvalid

    try:
        batch.validate(full=True)
    except ArrowInvalid as error:
        # A text that is not UTF-8 is a fault of one value, not of the file.
        if "UTF8" not in str(error):
            raise
        batch.validate()
    return batch


def _rows(batch: Any) -> list[dict[str, Any]]:
    """The rows of a batch. A value that Python cannot hold is :class:`Unreadable`."""
    names = batch.schema.names
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"column {twice} occurs twice"
        raise ValueError(msg)
    columns = [_values(batch.column(index)) for index in range(len(names))]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(column: Any) -> list[Any]:
    try:
        return cast("list[Any]", column.to_pylist())
    except (UnicodeDecodeError, OverflowError, ValueError):
        return [_value(item) for item in column]


def _value(item: Any) -> Any:
    try:
        return item.as_py()
    except UnicodeDecodeError as error:
        return Unreadable(f"not UTF-8 at byte {error.start + 1}")
    except (OverflowError, ValueError) as error:
        return Unreadable(str(error))


def _text(path: Path, name: str, head: bytes, complaints: Complaints) -> Iterator[DataRecord]:
    found = next((entry for magic, entry in COMPRESSIONS.items() if head.startswith(magic)), None)
    kind, opened = found or ("JSON", lambda path: path.open("rb", buffering=0))
    try:
        with io.BufferedReader(opened(path), PEEKED_BYTES) as file:
            yield from _json_records(file, name, complaints)
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise _damaged(kind, path, error) from None
    except OSError as error:
        if found is not None and error.errno is None:
            raise _damaged(kind, path, error) from None
        raise _unreadable(path, error) from None


def _json_records(
    file: io.BufferedReader, name: str, complaints: Complaints
) -> Iterator[DataRecord]:
    """Lines, or the items of one list where the document is a list."""
    if file.peek(3).startswith(BYTE_ORDER_MARK):
        file.read(len(BYTE_ORDER_MARK))
    if file.peek(PEEKED_BYTES).lstrip().startswith(b"["):
        yield from _document(file.read(), name)
        return
    empty = True
    for number, line in _lines(file, name, complaints):
        empty = False
        try:
            record = DataRecord(Location(name, number), parse_json(line, Location(name, number)))
        except CorpusError as error:
            complaints.add(error)
            continue
        yield record
    if empty and not complaints.total:
        raise CorpusError("the file has no records", where=name)


def _document(data: bytes, name: str) -> Iterator[DataRecord]:
    for number, item in enumerate(parse_json(data, Location(name)), start=1):
        yield DataRecord(Location(name, number, unit="item"), item)


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
        if line.strip():
            yield number, line


def parse_json(data: bytes, place: Location) -> Any:
    """One JSON value.

    Raises:
        CorpusError: not UTF-8, not JSON, or nested too deeply.
    """
    unit = "line" if place.line is not None else "file"
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        what = f"not UTF-8 at byte {error.start + 1}"
        raise wrong(f"the {unit} is not UTF-8", place, f"UTF-8 text ({what})") from None
    except json.JSONDecodeError as error:
        where = f"{error.msg}, character {error.pos + 1}"
        raise wrong(f"the {unit} is not JSON", place, f"JSON ({where})") from None
    except RecursionError:
        deepest = f"at most {NESTED_REPLIES} replies deep"
        raise wrong(f"the {unit} is nested too deeply", place, deepest) from None
    except ValueError as error:
        raise wrong(f"the {unit} is not JSON", place, f"JSON ({error})") from None
