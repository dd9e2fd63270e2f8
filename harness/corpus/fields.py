"""Typed look-ups in a record, and what happens to a record that cannot be used.

They are written by hand, not by pydantic, because a layout's columns go by many names, because
one bad message must not take its siblings along, and because a complaint names file, line and key.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.corpus.conversation import Speaker
from harness.errors import CorpusError

ROLES: Mapping[str, Speaker] = {
    "prompter": "user",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
UNWANTED = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A table's value that Python cannot hold, such as a date in the year 300,000."""

    reason: str


@dataclass(frozen=True, slots=True)
class Location:
    """A file, a line (or record number) in it, and a key path in that line."""

    file: str
    line: int | None = None
    key: str = ""
    unit: str = "line"

    def at(self, key: str | int) -> Location:
        """The place of one key or list index further in."""
        if isinstance(key, int):
            inner = f"{self.key}[{key}]"
        else:
            inner = f"{self.key}.{key}" if self.key else key
        return Location(self.file, self.line, inner, self.unit)

    def __str__(self) -> str:
        parts = [self.file]
        if self.line is not None:
            parts.append(f"{self.unit} {self.line}")
        if self.key:
            parts.append(f"key {self.key}")
        return ", ".join(parts)


def wrong(what: str, place: Location, expected: str | None = None) -> CorpusError:
    """A complaint about one place."""
    return CorpusError(what, where=place, expected=expected)


def _misfit(value: object, place: Location, expected: str) -> CorpusError:
    key = re.sub(r".*\.|\[\d+\]", "", place.key) or "record"
    if isinstance(value, Unreadable):
        return wrong(f"{key} cannot be read: {value.reason}", place, expected)
    kind = "null" if value is None else type(value).__name__
    # reprlib goes a few levels deep only: a whole repr of a deep value exhausts the stack.
    return wrong(f"{key} is of type {kind}", place, f"{expected}, found {reprlib.repr(value):.60}")


def get_mapping(value: object, place: Location) -> Mapping[str, Any]:
    """``value`` as an object with keys."""
    if not isinstance(value, Mapping):
        raise _misfit(value, place, "an object")
    return value


def get_list(data: Mapping[str, Any], key: str, place: Location) -> list[Any]:
    """A list."""
    value = data.get(key)
    if not isinstance(value, list):
        raise _misfit(value, place.at(key), "a list")
    return value


def get_name(data: Mapping[str, Any], key: str, place: Location, default: str | None = None) -> str:
    """A short string such as an id; ``default`` stands in for an absent or null one."""
    value = data.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or not value.strip():
        raise _misfit(value, place.at(key), "a non-empty string")
    return clean(value, place.at(key))


def get_optional_name(data: Mapping[str, Any], key: str, place: Location) -> str | None:
    """A short string, or None where it is absent or null."""
    return None if data.get(key) is None else get_name(data, key, place)


def get_role(data: Mapping[str, Any], key: str, place: Location) -> Speaker:
    """Who wrote a message, under any of the names that formats use."""
    name = get_name(data, key, place)
    if name.lower() not in ROLES:
        raise wrong("unknown role", place.at(key), f"one of {', '.join(ROLES)}, found {name!r:.60}")
    return ROLES[name.lower()]


def get_text(data: Mapping[str, Any], key: str, place: Location) -> str:
    """A message text without surrounding whitespace; empty is allowed."""
    value = data.get(key)
    if not isinstance(value, str):
        raise _misfit(value, place.at(key), "a string")
    return clean(value, place.at(key)).strip()


def clean(text: str, place: Location) -> str:
    """``text``, unless it holds what no tokenizer takes."""
    found = UNWANTED.search(text)
    if found:
        kind = "a NUL character" if found.group() == "\x00" else "half a surrogate pair"
        raise wrong(f"text holds {kind}", place, "Unicode text")
    return text


def get_flag(data: Mapping[str, Any], key: str, place: Location) -> bool | None:
    """A boolean, or None where it is absent or null."""
    value = data.get(key)
    if value is not None and not isinstance(value, bool):
        raise _misfit(value, place.at(key), "true, false or null")
    return value


def get_rank(data: Mapping[str, Any], key: str, place: Location) -> int | None:
    """A whole number from 0, or None where it is absent or null (NaN in data frames)."""
    value = data.get(key)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    whole = isinstance(value, int | float) and not isinstance(value, bool)
    if not whole or value < 0 or value != value // 1:
        raise _misfit(value, place.at(key), "a whole number from 0, or null")
    return int(value)


def get_labels(data: Mapping[str, Any], key: str, place: Location) -> dict[str, float]:
    """Ratings by name, from ``{name: {value, count}}`` or from lists ``name`` and ``value``."""
    value = data.get(key)
    if value is None:
        return {}
    place = place.at(key)
    labels = get_mapping(value, place)
    if isinstance(labels.get("name"), list):
        names, values = get_list(labels, "name", place), get_list(labels, "value", place)
        if len(names) != len(values):
            raise wrong("labels differ in number from their values", place, "lists of one length")
    else:
        names = list(labels)
        values = [_rating(label, name, place) for name, label in labels.items()]
    made = {}
    for name, number in zip(names, values, strict=True):
        if not isinstance(name, str):
            raise _misfit(name, place.at("name"), "a string")
        if not isinstance(number, int | float) or not math.isfinite(number):
            raise _misfit(number, place.at(name).at("value"), "a finite number")
        made[name] = float(number)
    return made


def _rating(label: object, name: str, place: Location) -> Any:
    if not isinstance(label, dict):
        raise _misfit(label, place.at(name), "an object with value and count")
    return label.get("value")


class ColumnUses:
    """What became of every column of the data, for people to look at."""

    def __init__(self) -> None:
        """Start with no column."""
        self._counts: dict[str, Counter[str]] = {}

    def note(self, data: Mapping[str, Any], uses: Mapping[str, str]) -> None:
        """Count one record's columns that hold something; ``uses`` says what each became."""
        for column, value in data.items():
            if value is None or (isinstance(value, str | list | dict) and not value):
                continue
            counts = self._counts.setdefault(column, Counter())
            counts[uses.get(column, "not read")] += 1

    def summary(self) -> tuple[tuple[str, str], ...]:
        """(column, what it became), in the order of appearance."""
        return tuple(
            (column, "; ".join(f"{use} ({count:,})" for use, count in counts.most_common()))
            for column, counts in self._counts.items()
        )


class Complaints:
    """Stops at the first bad record, or skips and counts it, as the suite's ``on_bad`` says."""

    def __init__(self, on_bad: Literal["error", "skip"] = "error") -> None:
        """Take the suite's choice."""
        self._on_bad = on_bad
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, error: CorpusError) -> None:
        """Count ``error`` under its first line.

        Raises:
            CorpusError: the suite wants no bad record skipped.
        """
        if self._on_bad == "error":
            hint = error.hint or 'mend the file, or set on_bad = "skip" in [corpus] to count it'
            raise CorpusError(error.what, where=error.where, expected=error.expected, hint=hint)
        self._counts[error.what] += 1
        self._first.setdefault(error.what, error.where or "")

    @property
    def total(self) -> int:
        """Records and messages skipped."""
        return self._counts.total()

    def summary(self) -> str:
        """Every kind of complaint with its count and the first place."""
        return "; ".join(
            f"{count} × {what} (first: {self._first[what]})"
            for what, count in self._counts.most_common()
        )


def escaped(text: str) -> str:
    """``text`` with control characters, which a terminal would obey, shown instead."""
    return CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)
