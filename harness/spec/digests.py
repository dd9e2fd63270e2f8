"""Digests: SHA-256 of documents, of plain data and of files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from harness.errors import StorageError

SAMPLE_BYTES = 1 << 20
LONGEST_HEADER = 100_000_000  # the format's own limit


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
