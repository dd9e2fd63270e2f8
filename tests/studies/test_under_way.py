"""Under way: what a study's runs are doing, read from their events by who has not started them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness.records.events import Advanced, EventLog, PhaseEnded, PhaseStarted
from harness.records.record import PhaseCost
from harness.records.store import RunStore
from harness.studies.agenda import Agenda
from harness.studies.findings import Job
from harness.studies.under_way import SILENCE_SECONDS, under_way
from tests.studies.stub import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench.of(tmp_path)


def events_of(store: RunStore, job: Job) -> Path:
    return store.folder(job.plan).attempt.events


def tell(path: Path, *events: object) -> None:
    """Write these events as a run would."""
    with EventLog(path) as log:
        for event in events:
            log.emit(event)  # type: ignore[arg-type]
    os.utime(path, (4e9, 4e9))  # just now, however long the machine sleeps before it is read


def first_two(agenda: Agenda) -> tuple[Job, Job]:
    one, two, *_ = agenda.jobs
    return one, two


def test_where_nobody_runs_anything_nothing_is_under_way(bench: Bench) -> None:
    assert list(under_way(bench.agenda(), bench.executor.store)) == []


def test_a_run_tells_its_phase_and_how_far_it_is(bench: Bench) -> None:
    agenda, store = bench.agenda(), bench.executor.store
    one, two = first_two(agenda)
    tell(events_of(store, two), PhaseStarted.now(phase="load"))
    tell(
        events_of(store, one),
        PhaseStarted.now(phase="load"),
        PhaseStarted.now(phase="train"),
        Advanced.now(done=3, total=40, numbers={"loss": 2.5}),
        Advanced.now(done=4, total=40, numbers={"tokens_per_second": 100.0}),
    )
    training, loading = list(under_way(agenda, store))
    assert (training.job, loading.job) == (one, two), "in the agenda's order"
    assert (training.phase, training.done, training.total) == ("train", 4, 40)
    assert training.loss == 2.5, "the last that was told"
    assert (loading.phase, loading.done, loading.loss) == ("load", 0, None)


def test_a_new_phase_begins_at_nothing(bench: Bench) -> None:
    agenda, store = bench.agenda(), bench.executor.store
    one, _ = first_two(agenda)
    tell(
        events_of(store, one),
        PhaseStarted.now(phase="train"),
        Advanced.now(done=40, total=40, numbers={"loss": 1.0}),
        PhaseEnded.now(cost=PhaseCost(name="train", seconds=1.0)),
    )
    (found,) = under_way(agenda, store)
    assert (found.phase, found.done, found.total) == ("train done", 0, 0)


def test_a_run_that_has_said_nothing_yet_is_starting(bench: Bench) -> None:
    agenda, store = bench.agenda(), bench.executor.store
    one, _ = first_two(agenda)
    tell(events_of(store, one))
    (found,) = under_way(agenda, store)
    assert found.phase == "starting"


def test_a_run_that_has_been_silent_for_long_is_gone(bench: Bench) -> None:
    agenda, store = bench.agenda(), bench.executor.store
    one, _ = first_two(agenda)
    tell(events_of(store, one), PhaseStarted.now(phase="train"))
    long_ago = time.time() - SILENCE_SECONDS - 5
    os.utime(events_of(store, one), (long_ago, long_ago))
    assert list(under_way(agenda, store)) == []
