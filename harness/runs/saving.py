"""Saving: a trained adapter in the folder of its run, whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from harness.errors import StorageError
from harness.records.store import RunFolder
from harness.spec.digests import file_sha256
from harness.weights.adapter import save_adapter
from harness.weights.interpolation import save_positions


def save_whole(model: Any, folder: RunFolder, *, interpolated: bool) -> tuple[dict[str, str], int]:
    """Write the adapter of ``model``, on the disk before anybody sees it.

    ``interpolated``: positions are divided, so the base's configuration lies beside the adapter.
    Returns the SHA-256 of each of its files by name, and the bytes of its weights.

    Raises:
        StorageError: the disk does not take it; no part of it is left.
    """
    scratch = folder.path / ".adapter.part"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        save_adapter(model, scratch)
        if interpolated:
            save_positions(model.config, scratch)
        for path in scratch.iterdir():
            _sync(path)
        written = {path.name: file_sha256(path) for path in sorted(scratch.iterdir())}
        shutil.rmtree(folder.adapter, ignore_errors=True)
        scratch.replace(folder.adapter)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise StorageError(f"cannot write the adapter: {error}", where=scratch) from error
    weights = folder.adapter.glob("*.safetensors")
    return written, sum(path.stat().st_size for path in weights)


def _sync(path: Path) -> None:
    """Have the system write the file to the disk now."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
