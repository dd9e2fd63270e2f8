"""Storage: the only code that reads and writes the TOML and JSON files of the project."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import tempfile
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from harness.errors import InvalidFile, StorageError
from harness.spec.schema import F, Versioned, model_in, not_valid, parse
from harness.spec.seal import sealed, unsealed

DEEPEST = 50
SHALLOW = f"at most {DEEPEST} lists or tables within each other"


def meant(path: Path) -> str | None:
    """What to ask a person who named a path that is not there: is it one with a like name?"""
    try:
        there = [entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return None
    close = [path.with_name(name) for name in difflib.get_close_matches(path.name, there)]
    return f"did you mean {' or '.join(map(str, close))}?" if close else None


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
        if not level:
            return
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
    except OSError as error:
        raise StorageError(f"cannot read: {error.strerror}", where=path) from None
    except ValueError as error:
        raise _not_whole(error, path) from None
    if not unchanged:
        raise _changed(text, kind, path)
    return parse_json(text, kind, where=path)


def parse_json(text: str, kind: type[F], *, where: object) -> F:
    """The document in ``text``, which was found at ``where``; one of an older harness too.

    Raises:
        InvalidFile: not JSON, of a newer schema version, or of another type.
    """
    try:
        found = kind.model_validate_json(text)
    except ValidationError as error:
        migrated = _migrated(_document(text, kind, where), kind, where)
        if migrated is None:
            raise not_valid(kind, error, where) from None
        return parse(kind, migrated, where=where)
    except ValueError as error:
        raise _not_whole(error, where) from None
    if _is_current(found):
        return found
    migrated = _migrated(_document(text, kind, where), kind, where)
    return found if migrated is None else parse(kind, migrated, where=where)


def _not_whole(error: Exception, where: object) -> InvalidFile:
    return InvalidFile(f"not a whole JSON document: {error}", where=where)


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
    inner = (getattr(document, name) for name in _holding_versions(type(document)))
    each = (one for value in inner for one in (value if isinstance(value, tuple) else (value,)))
    return all(_is_current(value) for value in each if isinstance(value, Versioned))


@cache
def _holding_versions(kind: type[BaseModel]) -> tuple[str, ...]:
    """Fields of ``kind`` in which another versioned document may stand."""
    return tuple(
        name for name, field in kind.model_fields.items() if _may_be_versioned(field.annotation)
    )


def _may_be_versioned(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return issubclass(annotation, Versioned)
    return annotation is Any or any(map(_may_be_versioned, get_args(annotation)))


def _document(text: str, kind: type[BaseModel], where: object) -> Any:
    """The plain data of a document that has been read as text."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not_whole(error, where) from None
    if issubclass(kind, Versioned) and not isinstance(data, dict):
        raise _of_version(kind, None, where)
    return data


def _migrated(data: Any, kind: type[BaseModel], where: object) -> dict[str, Any] | None:
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
            found = _migrated_inner(data.get(name), inner, where)
            data, changed = ({**data, name: found}, True) if found else (data, changed)
    if not issubclass(kind, Versioned):
        return data if changed else None
    version = data.get("schema_version")
    while version != kind.SCHEMA_VERSION:
        data = _step(kind, version, data, where)
        changed, version = True, data["schema_version"]
    return data if changed else None


def _migrated_inner(data: Any, kind: type[Versioned], where: object) -> Any:
    """As :func:`_migrated`, also of a list of documents."""
    if not isinstance(data, list):
        return _migrated(data, kind, where)
    found = [_migrated(one, kind, where) for one in data]
    return [new or one for new, one in zip(found, data, strict=True)] if any(found) else None


def _step(kind: type[Versioned], version: object, data: dict[str, Any], where: object) -> Any:
    """The document one version later."""
    if isinstance(version, int) and version in kind.MIGRATIONS:
        return {**kind.MIGRATIONS[version](data), "schema_version": version + 1}
    raise _of_version(kind, version, where)


def _of_version(kind: type[Versioned], version: object, where: object) -> InvalidFile:
    newer = isinstance(version, int) and version > kind.SCHEMA_VERSION
    return InvalidFile(
        f"{kind.__name__} of schema version {version}",
        where=where,
        expected=f"schema version {kind.SCHEMA_VERSION}",
        hint="install a newer harness to read it" if newer else "run the variant again",
    )


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


def free_bytes(path: Path) -> int:
    """Free bytes of the disk on which ``path`` lies, or would lie once it is made."""
    whole = path.absolute()
    there = next(folder for folder in (whole, *whole.parents) if folder.exists())
    return shutil.disk_usage(there).free


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
