"""Item names: what published records call items and their groups, so that no text is in them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

NUMBER = re.compile(r"\d{1,9}")
HASH = re.compile(r"[0-9a-f]{16}")


def hashed(name: Any) -> str:
    """The first 64 bits of the SHA-256 of a name, in hexadecimal; a name like that stays."""
    text = str(name)
    return text if HASH.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()[:16]


def are_places(names: Iterable[str]) -> bool:
    """Whether the names are 0, 1, 2 and so on, in any order, which say nothing of the data."""
    there = set(names)
    return there == set(map(str, range(len(there))))


def are_numbers(names: Iterable[Any]) -> bool:
    """Whether every name is a number."""
    return all(NUMBER.fullmatch(str(name)) for name in names)


def published(names: Sequence[Any], *, keep_numbers: bool) -> list[str]:
    """The names for published records: hashes, but for numbers where ``keep_numbers``."""
    texts = map(str, names)
    return [text if keep_numbers and NUMBER.fullmatch(text) else hashed(text) for text in texts]


def alike(columns: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The same columns of names, all hashes where one of them is.

    So a run made here is paired with one that was read from published records. Columns that are
    one object stay one object.
    """
    once = {id(names): names for names in columns}
    hashes = {key: _are_hashes(names) for key, names in once.items()}
    if len(set(hashes.values())) < 2:
        return list(columns)
    named = {
        key: names if hashes[key] else tuple(map(hashed, names)) for key, names in once.items()
    }
    return [named[id(names)] for names in columns]


def _are_hashes(names: Sequence[Any]) -> bool:
    return all(HASH.fullmatch(str(name)) for name in names)
