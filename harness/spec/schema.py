"""Strict frozen types, and the only code that reads and writes the project's TOML and JSON."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import InvalidFile, StorageError

SAMPLE_BYTES = 1 << 20
SEAL = re.compile(r'\{\n "digest": "([^"\n]*)",\n')
DEEPEST = 50
SHALLOW = f"at most {DEEPEST} lists or tables within each other"
LONGEST_HEADER = 100_000_000  # the format's own limit


class Frozen(BaseModel):
    """Base of every type of the project: immutable, strict, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )


class Versioned(Frozen):
    """A document that outlives the program that wrote it.

    ``SCHEMA_VERSION`` rises with every change that old readers would misread.
    """

    SCHEMA_VERSION: ClassVar[int] = 1
    schema_version: int


F = TypeVar("F", bound=Frozen)


def parse(kind: type[F], data: Mapping[str, Any], *, where: object) -> F:
    """Validate ``data`` as ``kind``.

    Validation goes through JSON, so that TOML lists are accepted for tuples while every other
    rule stays strict.

    Raises:
        InvalidFile: naming ``where``, each offending key, what was found and what was expected.
    """
    try:
        text = json.dumps(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidFile(f"not plain data: {error}", where=where) from None
    return _validate(kind, text, where)


def _validate(kind: type[F], text: str, where: object) -> F:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise _not_valid(kind, error, where) from None


def _not_valid(kind: type[BaseModel], error: ValidationError, where: object) -> InvalidFile:
    what = f"not a valid {kind.__name__.lower()}"
    return InvalidFile(what, where=where, expected=_explain(error, kind))


def _explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """One line per offending key."""
    lines = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"]) or "(whole document)"
        if item["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key{_alternatives(kind, item['loc'])}")
        elif item["type"] == "missing":
            lines.append(f"{key}: missing")
        else:
            reason = item["msg"].removeprefix("Value error, ")
            lines.append(f"{key}: {reason}, found {item['input']!r:.80}")
    return "\n            ".join(lines)


def _alternatives(kind: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """Keys that could have been meant at ``place`` in a document of ``kind``."""
    *path, key = place
    for part in path:
        if isinstance(part, int):
            continue
        field = kind.model_fields.get(part)
        inner = None if field is None else _model_in(field.annotation)
        if inner is None:
            return ""
        kind = inner
    close = difflib.get_close_matches(str(key), kind.model_fields, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; known are {', '.join(sorted(kind.model_fields))}"


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The one type of ours inside ``Adapter | None``, ``tuple[Task, ...]`` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = {inner for part in get_args(annotation) if (inner := _model_in(part)) is not None}
    return found.pop() if len(found) == 1 else None


def with_nulls(kind: type[BaseModel], data: Mapping[str, Any]) -> dict[str, Any]:
    """``data`` with null for every ``"none"`` that stands where ``kind`` allows null.

    Elsewhere it is a value like any other: ``quantization.type`` may be ``"none"``.
    """
    found = dict(data)
    for key, value in data.items():
        field = kind.model_fields.get(key)
        inner = None if field is None else _model_in(field.annotation)
        if field is not None and value == "none" and type(None) in get_args(field.annotation):
            found[key] = None
        elif inner is not None and isinstance(value, Mapping):
            found[key] = with_nulls(inner, value)
    return found


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; a syntax error is an InvalidFile that names the line."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidFile(f"not a TOML file: {error}", where=path) from None
    except RecursionError:
        raise InvalidFile("nested too deeply", where=path, expected=SHALLOW) from None
    except OSError as error:
        raise StorageError(f"cannot read: {error.strerror}", where=path) from None
    check_depth(data, path)
    return data


def check_depth(data: object, where: object) -> None:
    """Refuse what is nested so deeply that Python could not walk through it.

    Raises:
        InvalidFile: lists or tables more than ``DEEPEST`` within each other.
    """
    level = [data]
    for _ in range(DEEPEST + 1):
        tables = [item for item in level if isinstance(item, Mapping)]
        lists = [item for item in level if isinstance(item, list)]
        level = [inner for table in tables for inner in table.values()]
        level += [inner for items in lists for inner in items]
    if level:
        raise InvalidFile("nested too deeply", where=where, expected=SHALLOW)


def read_json(path: Path, kind: type[F]) -> F:
    """Read one document written by :func:`write_json`.

    Raises:
        InvalidFile: changed since it was written, cut in the middle, not JSON, of another schema
            version, or of another type.
    """
    try:
        text = _unsealed(path.read_text(encoding="utf-8"), path)
        found = kind.model_validate_json(text)
    except OSError as error:
        raise StorageError(f"cannot read: {error.strerror}", where=path) from None
    except ValidationError as error:
        _check_document(text, kind, path)
        raise _not_valid(kind, error, path) from None
    except ValueError as error:
        raise InvalidFile(f"not a whole JSON document: {error}", where=path) from None
    if isinstance(found, Versioned):
        _check_version(found.schema_version, type(found), path)
    return found


def _sealed(text: str) -> str:
    """A JSON object whose first line is a digest of all others."""
    rest = text.removeprefix("{\n")
    return f'{{\n "digest": "{hashlib.sha256(rest.encode()).hexdigest()}",\n{rest}'


def _unsealed(text: str, path: Path) -> str:
    """The document as it was before it was sealed; older ones are not.

    Raises:
        InvalidFile: it is not what was sealed.
    """
    seal = SEAL.match(text)
    if seal is None:
        return text
    rest = text[seal.end() :]
    if hashlib.sha256(rest.encode()).hexdigest() != seal[1]:
        _load(text, path)
        raise InvalidFile(
            "changed since it was written: its digest does not match",
            where=path,
            hint="restore it from a copy, or make it again",
        )
    return "{\n" + rest


def _load(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise InvalidFile("nested too deeply", where=path) from None
    except ValueError as error:
        raise InvalidFile(f"not a whole JSON document: {error}", where=path) from None


def _check_document(text: str, kind: type[BaseModel], path: Path) -> None:
    """Raise the reason why ``text`` is no document of ``kind``, if it is a matter of the whole."""
    data = _load(text, path)
    if issubclass(kind, Versioned):
        _check_version(data.get("schema_version") if isinstance(data, dict) else None, kind, path)


def _check_version(found: object, kind: type[Versioned], path: Path) -> None:
    wanted = kind.SCHEMA_VERSION
    if found == wanted:
        return
    newer = isinstance(found, int) and found > wanted
    raise InvalidFile(
        f"{kind.__name__} of schema version {found}",
        where=path,
        expected=f"schema version {wanted}",
        hint="install a newer harness to read it" if newer else "run the variant again",
    )


def canonical_json(model: BaseModel) -> str:
    """The one JSON text of a document: sorted keys, no spaces, UTF-8."""
    return _canonical(model.model_dump(mode="json"))


def _canonical(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def fingerprint(model: BaseModel) -> str:
    """SHA-256 (hex) of the canonical JSON."""
    return data_fingerprint(model.model_dump(mode="json"))


def data_fingerprint(data: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of plain data in the canonical JSON form."""
    return hashlib.sha256(_canonical(data).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes.

    Raises:
        StorageError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"cannot read: {error.strerror}", where=path) from None


def sampled_sha256(path: Path) -> str:
    """SHA-256 (hex) that stands for a large safetensors file without reading gigabytes.

    It covers the size, the header (names, types and places of all tensors) and the first, middle
    and last MiB. A change of some tensors that leaves all of these alone goes unseen.

    Raises:
        StorageError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest = hashlib.sha256(str(size).encode())
            file.seek(0)
            header = min(int.from_bytes(file.read(8), "little"), LONGEST_HEADER)
            for start, length in (
                (0, header + 8),
                (0, SAMPLE_BYTES),
                ((size - SAMPLE_BYTES) // 2, SAMPLE_BYTES),
                (size - SAMPLE_BYTES, SAMPLE_BYTES),
            ):
                file.seek(max(0, start))
                digest.update(file.read(length))
    except OSError as error:
        raise StorageError(f"cannot read: {error.strerror}", where=path) from None
    return digest.hexdigest()


def write_json(path: Path, model: BaseModel) -> None:
    """Write a document whole or not at all (temporary file, fsync, rename), sealed by a digest."""
    write_bytes(path, _sealed(model.model_dump_json(indent=1) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` whole or not at all.

    Raises:
        StorageError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"cannot write: {error.strerror}",
            where=path,
            hint="free some space, or choose another folder",
        ) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _sync_folder(path: Path) -> None:
    """Have the system write down the rename too, where folders can be opened for that."""
    if os.name != "posix":
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems refuse
            os.fsync(folder)
    finally:
        os.close(folder)
