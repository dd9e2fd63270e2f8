"""Told: what a run said, on the terminal and in a file, so that one cut short has said it too."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from harness.records.events import Advanced, Event, EventTail, Note, PhaseEnded, PhaseStarted
from harness.records.record import PhaseCost
from harness.records.store import RunFolder
from tests.runs.small_run import Heard, trains

GIB = 1 << 30


class Told(Heard):
    """Prints what a run does when it does it, and keeps it in a file."""

    def __init__(self, folder: RunFolder, devices: int, file: Path) -> None:
        """Hear the run in a folder."""
        super().__init__()
        self.act = self._print
        self._started = time.monotonic()
        self._folder, self._devices, self._file = folder, devices, file
        self._told: dict[str, list[Any]] = {"notes": [], "steps": [], "phases": []}

    def _print(self, event: Event) -> None:
        seconds = round(time.monotonic() - self._started, 1)
        if isinstance(event, PhaseStarted):
            print(f"at {seconds} s: {event.phase}", flush=True)
        elif isinstance(event, Note):
            self._told["notes"].append([seconds, event.text])
        elif isinstance(event, Advanced) and trains(event):
            self._keep("steps", {"at": seconds, **event.numbers})
        elif isinstance(event, PhaseEnded):
            peaks = [_peak(event.cost), *map(self._other, range(1, self._devices))]
            shown = {"seconds": event.cost.seconds, "peak_gib": peaks}
            self._keep("phases", {"at": seconds, "name": event.cost.name, **shown})

    def _keep(self, what: str, found: dict[str, Any]) -> None:
        self._told[what].append(found)
        print(found, flush=True)
        self._file.write_text(json.dumps(self._told, indent=1))

    def _other(self, rank: int) -> float | None:
        """The peak of another device in its latest phase, which it may not have told yet."""
        events = EventTail(self._folder.events_of(rank)).new()
        ended = [event.cost for event in events if isinstance(event, PhaseEnded)]
        return _peak(ended[-1]) if ended else None


def _peak(cost: PhaseCost) -> float | None:
    return None if cost.peak_allocated_bytes is None else cost.peak_allocated_bytes / GIB
