"""Events: the child's running account of its work, one JSON object per line of events.jsonl."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol


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
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def emit(self, kind: str, **fields: Any) -> None:
        """Append one event with the time (seconds since the epoch)."""
        self._file.write(json.dumps({"time": time.time(), "kind": kind, **fields}) + "\n")

    def note(self, text: str) -> None:
        """Say in words what is being done now."""
        self.emit("note", text=text)

    def advance(self, done: int, total: int, **numbers: float) -> None:
        """Report progress inside the phase."""
        self.emit("progress", done=done, total=total, **numbers)


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole event; a last line cut by a crash is left out."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event
