"""Digests: SHA-256 of documents, of plain data and of files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from harness.errors import StorageError


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
