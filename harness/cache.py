"""Cache: the user's folder for what can be fetched or computed again, and what is kept there."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from filelock import FileLock

from harness.errors import InvalidFile, StorageError
from harness.records.events import SILENCE, Progress
from harness.spec.places import ENVIRONMENT_VARIABLE, cache_folder
from harness.spec.schema import Versioned
from harness.spec.storage import read_json, write_json

__all__ = ["ENVIRONMENT_VARIABLE", "REUSE", "Reuse", "cache_folder", "cached_folder", "flaw"]

DIGESTS = ".digests.json"


@dataclass(frozen=True)
class Reuse:
    """How to take over what is kept: whom to tell, and under which order it must have been made.

    Without ``order`` it does not matter who made it.
    """

    progress: Progress = SILENCE
    order: str | None = None


REUSE = Reuse()


class Digests(Versioned):
    """What a kept folder holds: SHA-256 (hex) of every file, taken when it was written."""

    SCHEMA_VERSION: ClassVar[int] = 1
    schema_version: int = 1
    files: dict[str, str]
    order: str | None = None


def cached_folder(path: Path, fill: Callable[[Path], None], reuse: Reuse = REUSE) -> Path:
    """The folder ``path``, made by ``fill`` unless it is there and as it was written.

    ``fill`` writes into an empty folder beside it, which is renamed once it is complete, so that
    ``path`` appears whole or not at all. A second process waits for the first. Digests of all
    files are kept inside and checked at every call: a folder with a file that was changed, lost or
    added is made again, and said so. ``path`` must name all that ``fill`` depends on, its own code
    included (see :mod:`harness.origin`).

    Raises:
        StorageError: the cache cannot be read or written.
    """
    try:
        if flaw(path, reuse.order) is None:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock"), mode=_allowed(0o666)):
            found = flaw(path, reuse.order)
            if found is not None:
                if os.path.lexists(path):
                    reuse.progress.note(f"made again: {path.name} in {path.parent}, {found}")
                _make(path, fill, reuse.order)
    except OSError as error:
        raise StorageError(
            f"cannot use the cache: {error.strerror or error}",
            where=error.filename or path.parent,
            hint=f"free some space, or choose a folder that you can read and write: "
            f"{ENVIRONMENT_VARIABLE} for the cache, --reports for runs",
        ) from error
    return path


def flaw(path: Path, order: str | None = None) -> str | None:
    """Why the kept folder ``path`` cannot be used; None if every file is as it was written.

    Raises:
        OSError: it cannot be read at all.
    """
    if not path.is_dir():
        return "not a folder"
    if not (path / DIGESTS).is_file():
        return "which has no digests"
    try:
        kept = read_json(path / DIGESTS, Digests)
    except InvalidFile:
        return f"whose {DIGESTS} is damaged"
    if order is not None and kept.order != order:
        return "since nothing from earlier is to be taken over"
    return _difference(path, kept.files)


def _difference(path: Path, wanted: dict[str, str]) -> str | None:
    """The first file that is missing, unknown or not as it was written, in words."""
    found = {file.relative_to(path).as_posix(): file for file in _files(path)}
    for name in sorted(found.keys() | wanted.keys()):
        if name not in found:
            return f"which lacks {name}"
        if name not in wanted:
            return f"which was given {name}"
        if _sha256(found[name]) != wanted[name]:
            return f"whose {name} has changed since it was written"
    return None


def _make(path: Path, fill: Callable[[Path], None], order: str | None) -> None:
    scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        made = scratch / "made"
        made.mkdir()
        fill(made)
        files = {file.relative_to(made).as_posix(): _sha256(file) for file in _files(made)}
        write_json(made / DIGESTS, Digests(files=files, order=order))
        _share(made)
        if os.path.lexists(path):
            path.replace(scratch / "damaged")
        made.replace(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _files(folder: Path) -> Iterator[Path]:
    """All files below ``folder`` but its own digests, in order."""
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and path != folder / DIGESTS:
            yield path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _share(folder: Path) -> None:
    """Let other users read what is kept, as far as this user's umask allows it."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(_allowed(0o777 if path.is_dir() else 0o666))


def _allowed(mode: int) -> int:
    """``mode`` without what the process's umask takes away."""
    umask = os.umask(0o077)
    os.umask(umask)
    return mode & ~umask
