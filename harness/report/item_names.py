"""Item names: what published records call items and their groups, so that no text is in them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

NUMBER = re.compile(r"\d{1,9}")
OF_ARROW = b"ARROW:schema"  # kept in the files of runs, and not in those that are published


def were_published(path: Path) -> bool:
    """Whether an items file was written for publishing, so that its names hold no text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return OF_ARROW not in (pq.read_metadata(path).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def hashed(name: Any) -> str:
    """The first 64 bits of the SHA-256 of a name, in hexadecimal."""
    return hashlib.sha256(str(name).encode()).hexdigest()[:16]


def are_places(names: Iterable[str]) -> bool:
    """Whether the names are 0, 1, 2 and so on, in any order, which say nothing of the data."""
    there = set(names)
    return there == set(map(str, range(len(there))))


def are_numbers(names: Iterable[Any]) -> bool:
    """Whether every name is a number."""
    return all(NUMBER.fullmatch(str(name)) for name in names)


def for_publishing(names: Sequence[Any], *, keep_numbers: bool) -> list[str]:
    """The names for published records: hashes, but for numbers where ``keep_numbers``."""
    texts = map(str, names)
    return [text if keep_numbers and NUMBER.fullmatch(text) else hashed(text) for text in texts]


Names = tuple[Any, ...]


def alike(columns: Sequence[Names], published: Sequence[bool]) -> list[Names]:
    """The same columns of names, as published ones call them where one of them is ``published``.

    So a run made here is paired with one that was read from published records. Those hold hashes,
    or numbers where all names were places; older harnesses made hashes of places too. Columns that
    are one object stay one object.
    """
    theirs = {id(names): names for names, flag in zip(columns, published, strict=True) if flag}
    if not theirs:
        return list(columns)
    numbers = all(map(are_numbers, theirs.values()))
    named: dict[tuple[int, bool], Names] = {}
    for names, flag in zip(columns, published, strict=True):
        if (id(names), flag) not in named:
            stays = flag and (numbers or not are_numbers(names))
            told = names if stays else tuple(for_publishing(names, keep_numbers=numbers))
            named[id(names), flag] = told
    return [named[id(names), flag] for names, flag in zip(columns, published, strict=True)]
