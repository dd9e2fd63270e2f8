"""Whole: a folder that appears complete or not at all, and room for it on the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from harness import numbers
from harness.errors import StorageError, UserError
from harness.spec.storage import free_bytes

RESERVE_BYTES = 64 << 20  # for what an estimate forgets: configuration, tokenizer, the journal


def check_target(target: Path) -> None:
    """Refuse a target that exists, or that nobody could write.

    Raises:
        UserError: something is there already, or the parent is no folder.
    """
    if target.exists() or target.is_symlink():
        raise UserError(
            "the target already exists",
            where=target,
            expected="a folder that does not exist yet",
            hint="choose another, or delete it first",
        )
    for parent in target.absolute().parents:
        if parent.exists():
            if not parent.is_dir():
                raise UserError("not a folder", where=parent, expected="a folder to write into")
            break


def check_room(target: Path, needed: int) -> None:
    """Refuse to begin what would not fit.

    Raises:
        StorageError: with the bytes needed and the bytes free.
    """
    free = free_bytes(target)
    if needed + RESERVE_BYTES > free:
        raise StorageError(
            f"the export needs {numbers.size(needed)} and {numbers.size(free)} are free",
            where=target.parent,
            hint="free some space, or choose another folder",
        )


def write_whole(target: Path, fill: Callable[[Path], None]) -> Path:
    """Make the folder ``target`` by ``fill``, which writes into an empty folder beside it.

    That folder is synced to the disk and renamed once it is complete. What an export that was
    killed has left beside the target is cleared away by the next one.

    Raises:
        UserError: the target exists, or another export into it is under way.
        StorageError: the folder cannot be written; nothing is left.
    """
    check_target(target)
    scratch = target.with_name(f".{target.name}.part")
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with lock.acquire(timeout=0):
            try:
                _fill_and_rename(scratch, target, fill)
            finally:
                Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout:
        raise UserError("another export into this folder is under way", where=target) from None
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StorageError(
            f"cannot write: {reason}",
            where=target,
            hint="free some space, or choose another folder",
        ) from error
    return target


def _fill_and_rename(scratch: Path, target: Path, fill: Callable[[Path], None]) -> None:
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        fill(scratch)
        for path in sorted(scratch.rglob("*")):
            _sync(path)
        _sync(scratch)
        check_target(target)
        scratch.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _sync(path: Path) -> None:
    """Have the system write a file or folder to the disk now."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
