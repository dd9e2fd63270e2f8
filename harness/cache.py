"""Cache: the user's folder for what can be fetched or computed again."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from harness.errors import StorageError

ENVIRONMENT_VARIABLE = "FINETUNE_HARNESS_CACHE"


def cache_folder() -> Path:
    """``$FINETUNE_HARNESS_CACHE``, or the platform's cache folder of this project."""
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    return Path(chosen) if chosen else user_cache_path("finetune-harness")


def cached_folder(path: Path, fill: Callable[[Path], None]) -> Path:
    """The folder ``path``, made by ``fill`` if it is not there yet.

    ``fill`` writes into an empty folder beside it, which is renamed once it is complete, so that
    ``path`` appears whole or not at all. A second process waits for the first.

    Raises:
        StorageError: the cache cannot be written.
    """
    if path.is_dir():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock")):
            if path.is_dir():
                return path
            scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
            try:
                fill(scratch)
                scratch.replace(path)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise StorageError(
            f"cannot write the cache: {error.strerror or error}",
            where=path.parent,
            hint=f"free some space, or set {ENVIRONMENT_VARIABLE} to a folder you can write",
        ) from error
    return path
