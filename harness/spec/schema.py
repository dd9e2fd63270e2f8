"""Strict frozen types, and the only code that reads and writes the project's TOML and JSON."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_jsonable_python

from harness.errors import InvalidFile, StorageError
from harness.spec.seal import sealed, unsealed

ANY = object()  # whatever the value is
SAMPLE_BYTES = 1 << 20
DEEPEST = 50
SHALLOW = f"at most {DEEPEST} lists or tables within each other"
LONGEST_HEADER = 100_000_000  # the format's own limit


class Frozen(BaseModel):
    """Base of every type of the project: immutable, strict, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )


Migration = Callable[[dict[str, Any]], dict[str, Any]]


class Versioned(Frozen):
    """A document that outlives the program that wrote it.

    ``SCHEMA_VERSION`` rises with every change that old readers would misread. ``MIGRATIONS`` then
    gets a function under the number of the older version, which makes a document of the next
    version from its plain data; reading a file applies them one after the other.
    """

    SCHEMA_VERSION: ClassVar[int] = 1
    MIGRATIONS: ClassVar[Mapping[int, Migration]] = {}
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
        inner = None if field is None else model_in(field.annotation)
        if inner is None:
            return ""
        kind = inner
    close = difflib.get_close_matches(str(key), kind.model_fields, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; known are {', '.join(sorted(kind.model_fields))}"


def model_in(annotation: object) -> type[BaseModel] | None:
    """The one type of ours inside ``Adapter | None``, ``tuple[Task, ...]`` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = {inner for part in get_args(annotation) if (inner := model_in(part)) is not None}
    return found.pop() if len(found) == 1 else None


def leave_out(data: Any, key: str, when: object = ANY) -> None:
    """Delete the dotted ``key`` from plain data, in every item of a list on the way.

    With ``when``, only where it has that value.
    """
    first, _, rest = key.partition(".")
    if isinstance(data, list):
        for item in data:
            leave_out(item, key, when)
    elif isinstance(data, dict) and first in data:
        if rest:
            leave_out(data[first], rest, when)
        elif when is ANY or data[first] == when:
            del data[first]


def default_of(kind: type[BaseModel], key: str) -> Any:
    """The default of the dotted ``key`` in a document of ``kind``, as plain data."""
    first, _, rest = key.partition(".")
    field = kind.model_fields[first]
    if rest:
        inner = model_in(field.annotation)
        if inner is None:
            msg = f"{first} holds no section"
            raise KeyError(msg)
        return default_of(inner, rest)
    return to_jsonable_python(field.get_default(call_default_factory=True, validated_data={}))


def with_nulls(kind: type[BaseModel], data: Mapping[str, Any]) -> dict[str, Any]:
    """``data`` with null for every ``"none"`` that stands where ``kind`` allows null.

    Elsewhere it is a value like any other: ``quantization.type`` may be ``"none"``.
    """
    found = dict(data)
    for key, value in data.items():
        field = kind.model_fields.get(key)
        inner = None if field is None else model_in(field.annotation)
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
    """Read one document written by :func:`write_json`, also by an older harness.

    Raises:
        InvalidFile: changed since it was written, cut in the middle, not JSON, of a newer schema
            version, or of another type.
    """
    try:
        text, unchanged = unsealed(path.read_text(encoding="utf-8"))
        if not unchanged:
            raise _changed(text, kind, path)
        found = kind.model_validate_json(text)
    except OSError as error:
        raise StorageError(f"cannot read: {error.strerror}", where=path) from None
    except ValidationError as error:
        migrated = _migrated(_document(text, kind, path), kind, path)
        if migrated is None:
            raise _not_valid(kind, error, path) from None
        return parse(kind, migrated, where=path)
    except ValueError as error:
        raise InvalidFile(f"not a whole JSON document: {error}", where=path) from None
    if _is_current(found):
        return found
    migrated = _migrated(_document(text, kind, path), kind, path)
    return found if migrated is None else parse(kind, migrated, where=path)


def _changed(text: str, kind: type[BaseModel], path: Path) -> InvalidFile:
    """Why the document is not what was sealed; one that was cut says so."""
    _document(text, kind, path)
    return InvalidFile(
        "changed since it was written: its digest does not match",
        where=path,
        hint="restore it from a copy, or make it again",
    )


def _is_current(document: BaseModel) -> bool:
    """Whether the document and those inside it are of today's versions."""
    if isinstance(document, Versioned) and document.schema_version != document.SCHEMA_VERSION:
        return False
    inner = [value for _, value in document if isinstance(value, Versioned)]
    return all(_is_current(value) for value in inner)


def _document(text: str, kind: type[BaseModel], path: Path) -> Any:
    """The plain data of a document that has been read as text."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"not a whole JSON document: {error}", where=path) from None
    if issubclass(kind, Versioned) and not isinstance(data, dict):
        raise _of_version(kind, None, path)
    return data


def _migrated(data: Any, kind: type[BaseModel], path: Path) -> dict[str, Any] | None:
    """The data of an older ``kind``, brought to today's version; None where it is of today.

    Documents inside the document are brought there first, by their own migrations.

    Raises:
        InvalidFile: it is of a newer version, or of one that nothing leads on from.
    """
    if not isinstance(data, dict):
        return None
    changed = False
    for name, field in kind.model_fields.items():
        inner = model_in(field.annotation)
        if inner is not None and issubclass(inner, Versioned):
            found = _migrated(data.get(name), inner, path)
            data, changed = ({**data, name: found}, True) if found else (data, changed)
    if not issubclass(kind, Versioned):
        return data if changed else None
    version = data.get("schema_version")
    while version != kind.SCHEMA_VERSION:
        data = _step(kind, version, data, path)
        changed, version = True, data["schema_version"]
    return data if changed else None


def _step(kind: type[Versioned], version: object, data: dict[str, Any], path: Path) -> Any:
    """The document one version later."""
    if isinstance(version, int) and version in kind.MIGRATIONS:
        return {**kind.MIGRATIONS[version](data), "schema_version": version + 1}
    raise _of_version(kind, version, path)


def _of_version(kind: type[Versioned], version: object, path: Path) -> InvalidFile:
    newer = isinstance(version, int) and version > kind.SCHEMA_VERSION
    return InvalidFile(
        f"{kind.__name__} of schema version {version}",
        where=path,
        expected=f"schema version {kind.SCHEMA_VERSION}",
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
    write_bytes(path, sealed(model.model_dump_json(indent=1) + "\n").encode())


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
