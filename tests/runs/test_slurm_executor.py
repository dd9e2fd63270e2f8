"""Plans as submitit jobs; its debug and local clusters stand in for SLURM."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from harness.errors import RunError, RunInUse, UserError
from harness.records.events import Event, EventTail, ProcessStarted
from harness.records.store import RunStore
from harness.runs import slurm_executor
from harness.runs.batch import run_batch
from harness.runs.executor import make_executor
from harness.runs.lock import held, holder_of
from harness.runs.options import RunOptions
from harness.runs.slurm_executor import SlurmExecutor
from harness.runs.stop import Stop
from tests.runs.small_run import FIRST_NOTE, Heard, Small, halt, step_done, trains

pytest.importorskip("submitit", reason="an extra")


def test_a_plan_is_carried_out_by_a_job(small: Small, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    executor = SlurmExecutor(store, RunOptions(timeout_seconds=1800), cluster="debug")
    assert executor.device("cpu").kind == "cpu"
    plan = small.plan(variant="base")
    (result,) = run_batch([plan], executor)
    assert result.record is not None, result.error
    assert result.record.status == "ok", result.record.problem
    assert store.find(plan) == result.record


@pytest.mark.slow
def test_jobs_run_beside_each_other_in_processes_of_their_own(small: Small, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    executor = SlurmExecutor(store, RunOptions(timeout_seconds=1800), cluster="local")
    plans = [small.plan(seed=seed) for seed in range(2)]
    found = list(run_batch(plans, executor))
    assert {r.record.status for r in found if r.record} == {"ok"}
    assert all(store.find(plan) for plan in plans)


@pytest.mark.slow
def test_a_job_that_is_asked_to_stop_leaves_a_run_that_goes_on(
    small: Small, tmp_path: Path
) -> None:
    """As a cluster does that preempts it: SIGTERM for every process of the job."""
    store = RunStore(tmp_path / "runs")
    executor = SlurmExecutor(store, RunOptions(checkpoint_seconds=0), cluster="local")
    plan, asked = small.plan("budget.steps=60"), halt(store.root, step_done(1))
    future = executor.submit(plan, Heard())
    events, end = EventTail(store.folder(plan).attempt.events), time.monotonic() + 1800
    told: list[Event] = []
    while not any(trains(event) for event in told) and time.monotonic() < end:
        told += events.new()
        time.sleep(0.1)
    (pid,) = {event.pid for event in told if isinstance(event, ProcessStarted)}
    os.kill(pid, signal.SIGTERM)
    asked.unlink()
    assert future.result(timeout=1800).status == "interrupted"
    record = executor.submit(plan, Heard()).result(timeout=1800)
    assert (record.status, record.resumed) == ("ok", 1)


@pytest.mark.slow
def test_what_a_killed_job_has_left_is_its_result(small: Small, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    executor = SlurmExecutor(store, RunOptions(), cluster="local")
    plan = small.plan("budget.steps=60")
    halt(store.root, FIRST_NOTE)
    future = executor.submit(plan, Heard())
    end = time.monotonic() + 1800
    while not store.folder(plan).attempt.events.is_file() and time.monotonic() < end:
        time.sleep(0.1)
    _, pid, *_ = holder_of(store.folder(plan)).split()
    os.kill(int(pid), signal.SIGKILL)
    problem = future.result(timeout=1800).problem
    assert problem is not None
    assert problem.kind == "abandoned", "its child has ended with it"


def test_a_job_with_other_versions_is_refused(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_executor, "versions", lambda: {"torch": "1.0"})
    executor = SlurmExecutor(RunStore(tmp_path), cluster="debug")
    (result,) = run_batch([small.plan()], executor)
    assert isinstance(result.error, RunError)
    assert "other versions" in str(result.error)
    assert not list(tmp_path.rglob("record.json"))


def test_without_sbatch_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="jobs cannot be submitted here"):
        make_executor("slurm", RunStore(tmp_path), RunOptions(), "gpu")


def test_why_a_plan_was_not_run_keeps_its_class(small: Small, tmp_path: Path) -> None:
    """A study looks for runs under way elsewhere, a command for the user's mistakes."""
    store = RunStore(tmp_path / "runs")
    executor = SlurmExecutor(store, RunOptions(wait=False), cluster="debug")
    plan = small.plan()
    with held(store.folder(plan), lambda _: None, Stop(), wait=False):
        (result,) = run_batch([plan], executor)
    assert isinstance(result.error, RunInUse)
    model = plan.model.model_copy(update={"trust_remote_code": True})
    (result,) = run_batch([plan.model_copy(update={"model": model})], executor)
    assert isinstance(result.error, UserError)
    assert result.error.exit_code == 2
    assert result.error.hint
    assert "--trust-remote-code" in result.error.hint


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """SLURM's commands, which write down what they are asked; a partition is not known to them."""
    folder, log = tmp_path / "bin", tmp_path / "asked.txt"
    folder.mkdir()
    sbatch = f"""cat "$1" >> {log}
grep -q partition=nowhere "$1" && echo "sbatch: error: invalid partition specified" >&2 && exit 1
echo "Submitted batch job 7"
"""
    sacct = f"""grep -q scancel {log} && state=CANCELLED || state=PENDING
echo "JobID|State|NodeList"
for job in 7 7_0 7_1 7_2; do echo "$job|$state|"; done
"""
    texts = {"sbatch": sbatch, "scancel": f"echo scancel $@ >> {log}", "srun": "", "sacct": sacct}
    for name, text in texts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return lambda: log.read_text() if log.is_file() else ""


def test_plans_of_a_round_are_one_array(
    small: Small, tmp_path: Path, commands: Callable[[], str]
) -> None:
    executor = SlurmExecutor(RunStore(tmp_path / "runs"), partition="gpu")
    with executor.gathering():
        futures = [executor.submit(small.plan(seed=seed), Heard()) for seed in range(3)]
        assert not commands(), "they are gathered first"
    assert commands().count("--array=0-2%") == 1
    assert commands().count("--partition=gpu") == 1
    futures.append(executor.submit(small.plan(seed=3), Heard()))
    assert commands().count("--array=") == 1, "one alone is a job"
    executor.cancel()
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(timeout=600)  # submitit would wait 15 s for each of the four


def test_what_was_gathered_is_not_sent_after_an_interrupt(
    small: Small, tmp_path: Path, commands: Callable[[], str]
) -> None:
    executor = SlurmExecutor(RunStore(tmp_path / "runs"))
    futures = []

    def interrupted() -> None:
        with executor.gathering():
            futures.append(executor.submit(small.plan(), Heard()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(CancelledError):
        futures[0].result(timeout=600)
    assert not commands()


def test_a_partition_that_there_is_not_is_explained(
    small: Small, tmp_path: Path, commands: Callable[[], str]
) -> None:
    executor = SlurmExecutor(RunStore(tmp_path / "runs"), partition="nowhere")
    with pytest.raises(UserError, match="invalid partition") as caught:
        executor.device("cpu")
    assert "--partition" in str(caught.value.hint)
    (result,) = run_batch([small.plan()], executor)
    assert isinstance(result.error, UserError)
    assert commands().count("--partition=nowhere") == 2
