"""Plans as submitit jobs; its debug and local clusters stand in for SLURM."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import RunError, RunInUse, UserError
from harness.records.store import RunStore
from harness.runs import slurm_executor
from harness.runs.batch import run_batch
from harness.runs.executor import make_executor
from harness.runs.lock import held
from harness.runs.options import RunOptions
from harness.runs.slurm_executor import SlurmExecutor
from harness.runs.stop import Stop
from tests.runs.small_run import Small

pytest.importorskip("submitit", reason="an extra")


def test_a_plan_is_carried_out_by_a_job(small: Small, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    executor = SlurmExecutor(store, RunOptions(timeout_seconds=300), cluster="debug")
    assert executor.device("cpu").kind == "cpu"
    plan = small.plan(variant="base")
    (result,) = run_batch([plan], executor)
    assert result.record is not None, result.error
    assert result.record.status == "ok", result.record.problem
    assert store.find(plan) == result.record


@pytest.mark.slow
def test_jobs_run_beside_each_other_in_processes_of_their_own(small: Small, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    executor = SlurmExecutor(store, RunOptions(timeout_seconds=300), cluster="local")
    plans = [small.plan(seed=seed) for seed in range(2)]
    found = list(run_batch(plans, executor))
    assert {r.record.status for r in found if r.record} == {"ok"}
    assert all(store.find(plan) for plan in plans)


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
