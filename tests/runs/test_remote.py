"""Runs in tasks and jobs of a cluster say who ended them, as well as anybody knows."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from harness.records.events import EventTail, Note
from harness.records.record import Problem, RunRecord
from harness.records.store import RunStore
from harness.runs.attempt import Attempt
from harness.runs.ending import ABANDONED, interrupted
from harness.runs.options import RunOptions
from harness.runs.parcel import pack_plan, pack_sources, run_parcel, take_back
from harness.runs.remote import because, explain, supervise_remotely
from harness.runs.stop import Stop
from tests.planned import planned
from tests.runs.small_run import FIRST_NOTE, Small, halt, paths_named
from tests.store_records import record_of


@contextmanager
def interrupted_once_begun(root: Path) -> Iterator[None]:
    """SIGINT for this process as soon as a child below ``root`` speaks; pytest hears none."""
    halt(root, FIRST_NOTE)
    over = Event()

    def interrupt() -> None:
        while not over.wait(0.05):
            for path in paths_named("events.jsonl", root):
                if any(isinstance(event, Note) for event in EventTail(path).new()):
                    signal.raise_signal(signal.SIGINT)
                    return

    before = signal.signal(signal.SIGINT, lambda *_: None)
    thread = Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGINT, before)


def test_an_interrupted_job_is_a_record_that_names_the_signal(small: Small, tmp_path: Path) -> None:
    """No person sits at a cluster's machine; who sent the plan may know more."""
    store, plan, options = RunStore(tmp_path), small.plan(), RunOptions()
    with interrupted_once_begun(tmp_path):
        record = supervise_remotely(plan, store, options)
    assert record.status == "interrupted"
    assert told(record) == "stopped by SIGINT"
    assert store.find(plan) == record
    explain(store, plan, "another command", interrupted("another reason"))
    assert store.find(plan) == record
    explain(store, plan, options.name, interrupted("SLURM job 7 was preempted"))
    found = store.find(plan)
    assert found is not None
    assert told(found) == "SLURM job 7 was preempted"
    assert found == because(record, interrupted("SLURM job 7 was preempted"))


def test_an_interrupted_task_comes_back_with_the_senders_reason(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_HARNESS_CACHE", str(tmp_path / "far"))
    plan, back, stop = small.plan(), RunStore(tmp_path / "back"), Stop()
    parcel, sources = pack_plan(plan, RunOptions(), back), pack_sources(plan)
    with interrupted_once_begun(tmp_path / "far"):
        data = run_parcel(parcel, sources)
    stop.ask("stopped because the command ended on an error: no such data")
    record = take_back(data, plan, back, stop=stop)
    assert told(record) == "stopped because the command ended on an error: no such data"
    assert back.find(plan) == record
    assert list((tmp_path / "far").rglob("attempt")), "there it can go on"
    assert b"whole/attempt" not in data, "what it goes on from stays where it was begun"


def test_of_a_job_that_left_no_record_its_end_is_told(small: Small, tmp_path: Path) -> None:
    store, plan, options = RunStore(tmp_path), small.plan(), RunOptions()
    Attempt(plan, store.folder(plan)).prepare(options)
    explain(store, plan, options.name, interrupted("SLURM job 7 lost its machine"))
    found = store.find(plan)
    assert found is not None
    assert found.problem is not None
    assert found.problem.kind == ABANDONED.kind, "nobody asked it to end: a study tries it again"
    assert told(found) == f"{ABANDONED.message}: SLURM job 7 lost its machine"


def test_a_run_that_ended_otherwise_keeps_its_own_words() -> None:
    problem = Problem(kind="crash", phase="train", step=3, message="stopped by SIGTERM")
    crash = record_of(planned(), status="failed", problem=problem)
    assert because(crash, interrupted("")) == crash
    assert because(record_of(planned()), interrupted("")) == record_of(planned())


def told(record: RunRecord) -> str:
    """What a record says of its end."""
    assert record.problem is not None
    return record.problem.message
