"""Known digests: SHA-256 of large files, remembered for as long as the file system says the same.

A size and times say nothing about a damaged disk. So a remembered digest serves to plan with; what
computes from the file hashes it anew.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from harness.errors import InvalidFile, StorageError
from harness.spec.digests import file_sha256
from harness.spec.places import cache_folder
from harness.spec.schema import Versioned
from harness.spec.storage import read_json, write_json

SMALL_BYTES = 16 << 20
SETTLED_SECONDS = 2.0
"""A file that changed so lately may change once more within one tick of its clock."""


class KnownDigest(Versioned):
    """SHA-256 (hex) of one file."""

    SCHEMA_VERSION: ClassVar[int] = 1
    schema_version: int = 1
    path: str
    sha256: str


def known_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes; that of a large one may be remembered.

    A remembered digest holds while device, inode, size and times of the file stay the same.

    Raises:
        StorageError: the file cannot be read.
    """
    before = _state(path)
    if before.st_size < SMALL_BYTES:
        return file_sha256(path)
    memory = memory_of(path, before)
    with suppress(InvalidFile, StorageError):
        return read_json(memory, KnownDigest).sha256
    found = file_sha256(path)
    after = _state(path)
    if memory_of(path, after) == memory and time.time() - after.st_ctime > SETTLED_SECONDS:
        with suppress(StorageError):  # it is hashed again where nothing can be written
            write_json(memory, KnownDigest(path=str(path), sha256=found))
    return found


def forget_digest(path: Path) -> None:
    """Forget the digest of a file that was found to be another."""
    with suppress(StorageError, OSError):
        memory_of(path, _state(path)).unlink(missing_ok=True)


def _state(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise StorageError(f"cannot read: {error.strerror}", where=path) from None


def memory_of(path: Path, state: os.stat_result) -> Path:
    """Where the digest of the file in this state is remembered."""
    place = (path.resolve(), state.st_dev, state.st_ino)
    parts = (*place, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    name = hashlib.sha256("\n".join(map(str, parts)).encode(errors="surrogateescape")).hexdigest()
    return cache_folder() / "digests" / f"{name[:32]}.json"
