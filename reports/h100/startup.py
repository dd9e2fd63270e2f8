"""Startup: seconds from a command to its first phase, between its phases and after them.

``PYTHONPATH=. python reports/h100/startup.py -- -v qlora_nf4_dq -s quick`` gives what
follows ``--`` to ``python -m harness run`` with an empty folder of reports, and prints one line of
JSON for each run, in the order in which they began. With ``--libraries`` the line also says how
long ``python -c 'import torch, transformers'`` took right before.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.records.events import Event, EventTail, PhaseEnded, PhaseStarted, ProcessStarted


def timed(command: list[str], log: Path | None = None) -> tuple[float, float, int]:
    """When a command began, the seconds it took and its exit code, also of one interrupted."""
    began, clock = time.time(), time.monotonic()
    with (log or Path("/dev/null")).open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            code = process.wait()
    return began, time.monotonic() - clock, code


def events_below(reports: Path) -> list[list[Event]]:
    """The events of every run, those first that began first."""
    found = [list(EventTail(path).new()) for path in (reports / "runs").rglob("events.jsonl")]
    once = {events[0].clock: events for events in found if events}  # what ended early lies twice
    return [once[clock] for clock in sorted(once)]


def first(events: list[Event], kind: type[Any]) -> float | None:
    """When the first event of a kind was said."""
    return next((event.time for event in events if isinstance(event, kind)), None)


def account(events: list[Event], since: float) -> Iterator[tuple[str, Any]]:
    """Where the time of a run went since the command began, or the last run before it ended."""
    process, phase = first(events, ProcessStarted), first(events, PhaseStarted)
    costs = [event for event in events if isinstance(event, PhaseEnded)]
    if process is None or phase is None or not costs:
        yield "failed", "no phase has ended"
        return
    inside = sum(event.cost.seconds for event in costs)
    yield "to_process", round(process - since, 2)
    yield "process_to_first_phase", round(phase - process, 2)
    yield "to_first_phase", round(phase - since, 2)
    yield "between_phases", round(costs[-1].time - phase - inside, 2)
    yield "phases", {event.cost.name: round(event.cost.seconds, 2) for event in costs}


def main() -> int:
    """Time one command; the exit code is that of ``run``."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--label", default="run")
    options.add_argument("--libraries", action="store_true")
    options.add_argument("run", nargs="+", help="options of `harness run`, after --")
    given = options.parse_args()
    peer = None
    if given.libraries:
        _, seconds, _ = timed([sys.executable, "-c", "import torch, transformers"])
        peer = round(seconds, 2)
    with tempfile.TemporaryDirectory() as folder:
        reports, log = Path(folder) / "reports", Path(folder) / "log"
        command = [sys.executable, "-m", "harness", "run", *given.run, "--reports", str(reports)]
        since, seconds, code = timed(command, log)
        ended = since + seconds
        runs = events_below(reports)
        for events in runs:
            before = [one[-1].time for one in runs if one[-1].time < events[0].time]
            row = dict(account(events, max(before, default=since)))
            row["to_end_of_command"] = round(ended - events[-1].time, 2)
            print(json.dumps({"label": given.label, "import": peer, **row}), flush=True)
        print(json.dumps({"label": given.label, "command": round(seconds, 2), "code": code}))
        if code:
            print(log.read_text(errors="replace")[-3000:], file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
