"""Plans as submitit jobs; its debug and local clusters stand in for SLURM."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from harness.errors import RunError, RunInUse, UserError
from harness.records.events import Event, EventTail, ProcessStarted
from harness.records.record import Problem, RunRecord
from harness.records.store import RunStore
from harness.runs import slurm_executor
from harness.runs.attempt import Attempt
from harness.runs.batch import run_batch
from harness.runs.ending import Ending
from harness.runs.executor import make_executor
from harness.runs.lock import held, holder_of
from harness.runs.options import RunOptions
from harness.runs.remote import explain
from harness.runs.slurm_executor import SlurmExecutor
from harness.runs.slurm_reason import SAID_IN_TIME, UNTOLD, end_of_job
from harness.runs.stop import Stop
from harness.spec.plan import Plan
from harness.spec.storage import write_bytes
from harness.studies.findings import is_killed, is_settled
from tests.runs.small_run import FIRST_NOTE, Heard, Small, halt, step_done, trains
from tests.store_records import record_of

slurm = pytest.importorskip("submitit.slurm.slurm", reason="an extra")


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
    ended = future.result(timeout=1800)
    assert ended.status == "interrupted"
    assert end_of(ended) == "stopped by SIGTERM"
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
    scontrol = f"cat {tmp_path / 'job.txt'} 2> /dev/null"
    scancel = f"echo scancel $@ >> {log}"
    texts = {"sbatch": sbatch, "scancel": scancel, "srun": "", "sacct": sacct, "scontrol": scontrol}
    for name, text in texts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    slurm.SlurmJob.watcher.clear()  # it remembers how job 7 of another test has ended
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


@pytest.mark.parametrize(
    ("shown", "said", "kind", "message"),
    [
        ("JobState=CANCELLED", "", "cancelled", "was cancelled"),
        ("JobState=NODE_FAIL PreemptTime=None", "", "interrupted", "lost its machine"),
        ("JobState=COMPLETED PreemptTime=2026-11-26", "", "interrupted", "was preempted"),
        ("JobState=TIMEOUT", "", "out_of_time", "reached its time limit"),
        ("JobState=FAILED", SAID_IN_TIME, "out_of_time", "reached its time limit"),
        ("JobState=OUT_OF_MEMORY", "", "host_oom", "used more memory than it was given"),
    ],
)
@pytest.mark.usefixtures("commands")
def test_what_slurm_says_of_a_job_is_put_in_words(
    tmp_path: Path, shown: str, said: str, kind: str, message: str
) -> None:
    (tmp_path / "job.txt").write_text(f"JobId=7 {shown}")
    end = end_of_job("7", said, lambda: "UNKNOWN")
    assert end is not None
    assert (end.kind, end.message) == (kind, f"SLURM job 7 {message}")
    assert end.status == ("oom" if kind == "host_oom" else "interrupted")


@pytest.mark.parametrize(
    ("accounted", "kind"), [("OUT_OF_MEMORY", "host_oom"), ("CANCELLED by 1000", "cancelled")]
)
@pytest.mark.usefixtures("commands")
def test_of_a_job_that_slurm_has_forgotten_its_accounting_is_asked(
    accounted: str, kind: str
) -> None:
    end = end_of_job("7", "", lambda: accounted)
    assert end is not None
    assert end.kind == kind


@pytest.mark.parametrize(
    ("shown", "end"),
    [
        ("JobId=7 JobState=COMPLETED PreemptTime=None", UNTOLD),
        ("JobId=7 JobState=COMPLETING", None),
        ("", UNTOLD),
    ],
)
@pytest.mark.usefixtures("commands")
def test_what_slurm_did_not_end_or_has_yet_to_end(
    tmp_path: Path, shown: str, end: Ending | None
) -> None:
    (tmp_path / "job.txt").write_text(shown)
    assert end_of_job("7", "", lambda: "UNKNOWN") == end


def prepared(small: Small, path: Path) -> tuple[RunStore, RunOptions, Plan]:
    """A run whose job was submitted, and its store."""
    store, options, plan = RunStore(path / "runs"), RunOptions(), small.plan()
    Attempt(plan, store.folder(plan)).prepare(options)
    return store, options, plan


def end_without_results(path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """Let job 7 have ended in a state and written nothing."""
    monkeypatch.setattr(slurm.SlurmJob, "_results_timeout_s", 0)  # none will come
    monkeypatch.setattr(slurm.SlurmJob.watcher, "_delay_s", 0)
    accounts = f"#!/bin/sh\necho 'JobID|State|NodeList'\necho '7|{state}|'\n"
    (path / "bin" / "sacct").write_text(accounts)
    (path / "job.txt").write_text(f"JobId=7 JobState={state}")


@pytest.mark.usefixtures("commands")
def test_a_job_killed_for_memory_before_it_could_write_is_out_of_memory(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, it counted as abandoned and was sent again."""
    end_without_results(tmp_path, monkeypatch, "OUT_OF_MEMORY")
    store, options, plan = prepared(small, tmp_path)
    record = SlurmExecutor(store, options).submit(plan, Heard()).result(timeout=1800)
    assert record.status == "oom"
    assert end_of(record) == "SLURM job 7 used more memory than it was given"
    assert is_settled(record)
    assert store.find(plan) == record


@pytest.mark.parametrize(
    ("state", "counts"),
    [("PREEMPTED", False), ("NODE_FAIL", False), ("TIMEOUT", True), ("CANCELLED", True)],
)
@pytest.mark.usefixtures("commands")
def test_a_job_whose_machine_was_taken_before_it_could_write_is_no_try(
    small: Small, tmp_path: Path, state: str, counts: bool
) -> None:
    """Before, it counted as abandoned, and after three times as failed."""
    (tmp_path / "job.txt").write_text(f"JobId=7 JobState={state}")
    store, options, plan = prepared(small, tmp_path)
    end = end_of_job("7", "", lambda: "UNKNOWN")
    assert end is not None
    record = explain(store, plan, options.name, end)
    assert record is not None
    assert (record.status, is_killed(record)) == ("interrupted", counts)
    assert "SLURM job 7" in end_of(record)
    assert not is_settled(record)


@pytest.mark.usefixtures("commands")
def test_a_job_that_stays_preempted_is_waited_for_no_longer(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Submitit expects such a job to be queued again, for ever."""
    monkeypatch.setattr(slurm_executor, "DECISION_SECONDS", 0.5)
    end_without_results(tmp_path, monkeypatch, "PREEMPTED")
    store, options, plan = prepared(small, tmp_path)
    record = SlurmExecutor(store, options).submit(plan, Heard()).result(timeout=600)
    assert end_of(record) == "SLURM job 7 was preempted"
    assert not is_killed(record)


@pytest.mark.usefixtures("commands")
def test_a_run_that_somebody_cancelled_counts_as_a_try(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wrote its record when it was told to end; so does one that is preempted."""
    monkeypatch.setattr(slurm_executor, "DECISION_SECONDS", float("inf"))
    options, plan = RunOptions(), small.plan()
    for state, counts in (("CANCELLED", True), ("PREEMPTED", False)):
        store = RunStore(tmp_path / state / "runs")
        (tmp_path / "job.txt").write_text(f"JobId=7 JobState={state}")
        future = SlurmExecutor(store, options).submit(plan, Heard())
        interrupt_job(plan, store, options)
        record = future.result(timeout=1800)
        assert (record.status, is_killed(record)) == ("interrupted", counts), state
        left = store.find(plan)
        assert left is not None
        assert left.problem == record.problem, state
        assert not is_settled(record)


@pytest.mark.usefixtures("commands")
def test_a_run_that_slurm_has_ended_says_so(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the run is, nothing but the signal is known."""
    monkeypatch.setattr(slurm_executor, "DECISION_SECONDS", float("inf"))
    store, options, plan = RunStore(tmp_path / "runs"), RunOptions(), small.plan()
    future = SlurmExecutor(store, options).submit(plan, Heard())
    (tmp_path / "job.txt").write_text("JobId=7 JobState=COMPLETING")
    interrupt_job(plan, store, options)
    with pytest.raises(TimeoutError):
        future.result(timeout=1.5)  # SLURM has yet to say how the job has ended
    (tmp_path / "job.txt").write_text("JobId=7 JobState=PREEMPTED")
    assert end_of(future.result(timeout=1800)) == "SLURM job 7 was preempted"
    assert store.find(plan) == future.result()


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.usefixtures("commands")
def test_a_run_that_this_command_has_ended_says_why(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """Also where the job was killed before it could answer."""
    monkeypatch.setattr(slurm_executor, "DECISION_SECONDS", float("inf"))
    (tmp_path / "job.txt").write_text("JobId=7 JobState=COMPLETING")
    store, options, plan = RunStore(tmp_path / "runs"), RunOptions(), small.plan()
    executor = SlurmExecutor(store, options)
    future = executor.submit(plan, Heard())
    interrupt_job(plan, store, options, answers=answers)
    executor.cancel_because("stopped by SIGHUP")
    assert end_of(future.result(timeout=1800)) == "stopped by SIGHUP"
    assert store.find(plan) == future.result()


def interrupt_job(
    plan: Plan, store: RunStore, options: RunOptions, *, answers: bool = True
) -> None:
    """Leave what job 7 leaves when SIGTERM ends it: its run's record, and mostly its answer."""
    problem = Problem(kind="interrupted", phase="train", step=3, message="stopped by SIGTERM")
    record = record_of(plan, status="interrupted", problem=problem)
    attempt = Attempt(plan, store.folder(plan))
    attempt.prepare(options)
    record = attempt.store(record, None)
    answer = pickle.dumps(("success", record.model_dump_json()))
    if answers:
        write_bytes(store.root.parent / "slurm" / "7_0_result.pkl", answer)


def end_of(record: RunRecord) -> str:
    """What a record says of its end."""
    assert record.problem is not None
    return record.problem.message


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


def test_an_error_over_a_result_reaches_who_waits(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_executor, "_carry_out", lambda *_: "no record")
    executor = SlurmExecutor(RunStore(tmp_path), cluster="debug")
    for _ in range(2):  # the thread that watches jobs lives on
        (result,) = run_batch([small.plan(variant="base")], executor)
        assert isinstance(result.error, RunError)
        assert "the job failed: ValidationError" in str(result.error)
