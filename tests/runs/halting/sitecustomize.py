"""Sitecustomize: has the process of a run wait where a test names an event, until it is let go on.

What hears a run's events reads them a tenth of a second later, or ten seconds later on a machine
that is busy, and by then the run may have ended. Python imports this module by its name in every
process that has its folder on PYTHONPATH.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

VARIABLE = "FINETUNE_HARNESS_TEST_HALT"  # the file that names the event; it goes on without it
EVENTS = "harness.records.events"
seen = 0  # events of this process that a test has named


def matches(event: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether an event has the wanted fields; of a field with names, whether it has that name."""
    for name, value in wanted.items():
        found = event.get(name)
        if not (value in found if isinstance(found, dict) else value == found):
            return False
    return True


def _halt(path: str, event: Any) -> None:
    global seen  # noqa: PLW0603 - there is one log of events in a process
    import json  # not in every process of a test

    file = os.environ[VARIABLE]
    try:
        with open(file, encoding="utf-8") as opened:  # noqa: PTH123 - nor this
            asked = json.load(opened)
    except FileNotFoundError:
        return
    # Of several devices the first one tells the events that are heard, and halts.
    first = path.startswith(asked["below"]) and path.endswith("/events.jsonl")
    if not first or not matches(event.model_dump(), asked["event"]):
        return
    seen += 1
    while seen == asked["nth"] and os.path.exists(file):  # noqa: PTH110
        time.sleep(0.01)


class _AfterEvents:
    """Imports the module of events, and has its log wait after the event that a test names."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, _target: object = None
    ) -> ModuleSpec | None:
        if name != EVENTS:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_change(module: Any) -> None:
            load(module)
            emit = module.EventLog.emit

            def emit_and_halt(log: Any, event: Any) -> None:
                emit(log, event)
                _halt(str(log._file.name), event)

            module.EventLog.emit = emit_and_halt

        spec.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return spec


if VARIABLE in os.environ and __name__ == "sitecustomize":
    sys.meta_path.insert(0, _AfterEvents())  # type: ignore[arg-type]
