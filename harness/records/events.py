"""Events: the child's running account of its work, one JSON object per line of events.jsonl."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self


class Progress(Protocol):
    """What a phase may say while it works. Call one of these at least every two seconds of work."""

    def note(self, text: str) -> None:
        """Say in words what is being done now."""

    def advance(self, done: int, total: int, **numbers: float) -> None:
        """Report ``done`` of ``total`` units, with numbers such as loss= or tokens_per_second=."""


class Silence:
    """A Progress that nobody listens to, for tests and library use."""

    def note(self, text: str) -> None:
        """Drop it."""

    def advance(self, done: int, total: int, **numbers: float) -> None:
        """Drop it."""


class EventLog:
    """Appends events to a file. A Progress for whatever phase is under way."""

    def __init__(self, path: Path) -> None:
        """Open ``path`` for appending."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def emit(self, kind: str, **fields: Any) -> None:
        """Append one event with the time (seconds since the epoch). Threads may do so at once.

        Raises:
            OSError: the disk is full.
        """
        line = (json.dumps({"time": time.time(), "kind": kind, **fields}) + "\n").encode()
        if self._file.write(line) != len(line):  # one call, so that lines of threads do not mix
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)

    def note(self, text: str) -> None:
        """Say in words what is being done now."""
        self.emit("note", text=text)

    def advance(self, done: int, total: int, **numbers: float) -> None:
        """Report progress inside the phase."""
        self.emit("progress", done=done, total=total, **numbers)


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole event; a last line cut by a crash is left out."""
    yield from EventTail(path).new()


class EventTail:
    """Follows a growing events file; every byte is read once."""

    def __init__(self, path: Path) -> None:
        """Follow ``path`` from its beginning; it need not exist yet."""
        self._path = path
        self._offset = 0
        self._rest = b""

    def new(self) -> Iterator[dict[str, Any]]:
        """Whole events written since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "kind" in event:
                yield event
