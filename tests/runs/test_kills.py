"""Twenty kills at random moments of one run change nothing in what it ends with."""

from __future__ import annotations

import os
import random
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from harness.records.events import Event, ProcessStarted
from harness.records.record import PHASES
from harness.records.store import RunStore
from harness.runs.options import RunOptions
from harness.runs.supervise import supervise
from tests.runs.results import files, results
from tests.runs.small_run import Heard, make_small, starts

KILLS = 20
LOADING = "libraries"
LOADING_SECONDS = 3.0


def kill_after(heard: Heard, moment: str, seconds: float) -> None:
    """Kill the child some seconds after a phase (or the loading of libraries) begins."""

    def act(event: Event) -> None:
        begun = isinstance(event, ProcessStarted) and moment == LOADING
        if begun or starts(event, moment):
            heard.act = None
            pid = heard.pid

            def kill() -> None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

            threading.Timer(seconds, kill).start()

    heard.act = act


@pytest.mark.slow
def test_twenty_kills_leave_no_trace(tmp_path: Path) -> None:
    """A kill while the adapter is saved may come too late; then another run is begun."""
    small = make_small(tmp_path, steps=120)
    plan, options = small.plan(), RunOptions(checkpoint_seconds=0.3)
    undisturbed = RunStore(tmp_path / "undisturbed")
    reference = supervise(plan, undisturbed, Heard(), options)
    seconds = {cost.name: cost.seconds for cost in reference.phases} | {LOADING: LOADING_SECONDS}
    chance = random.Random(20)
    kills = runs = 0
    while kills < KILLS:
        runs += 1
        store = RunStore(tmp_path / f"killed {runs}")
        record = None
        while record is None or record.status != "ok":
            heard = Heard()
            if kills < KILLS:
                moment = a_moment(store.folder(plan).attempt.path, chance)
                kill_after(heard, moment, chance.uniform(0, 0.9) * seconds[moment])
            record = supervise(plan, store, heard, options)
            kills += record.status != "ok"
            assert record.problem is None or record.problem.kind == "killed"
        assert results(record) == results(reference)
        assert files(store, plan) == files(undisturbed, plan)


def a_moment(attempt: Path, chance: random.Random) -> str:
    """A phase that is still to come, training more often than others."""
    left = [name for name in PHASES if not (attempt / f"{name}.json").exists()]
    return chance.choice([LOADING, *left, "train", "train"])
