"""Plans on a real local Ray cluster of two machines, one of which dies in the middle."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from harness.errors import UserError
from harness.records.events import EventTail
from harness.records.store import RunStore
from harness.runs.batch import run_batch
from harness.runs.executor import make_executor
from harness.runs.options import RunOptions
from harness.runs.ray_executor import NICENESS, RayExecutor
from harness.runs.supervise import supervise
from tests.runs.results import files, results
from tests.runs.small_run import STEP_DONE, Heard, Small, halt, paths_named, trains

pytest.importorskip("ray", reason="an extra")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A head without room for runs, and two machines with room for one each."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("FINETUNE_HARNESS_CACHE", str(tmp_path / "far"))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False)
    made.nodes_for_test = nodes
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
def test_a_machine_that_dies_costs_time_and_nothing_else(
    cluster: Any, small: Small, tmp_path: Path
) -> None:
    store, here = RunStore(tmp_path / "runs"), RunStore(tmp_path / "here")
    executor = make_executor("ray", store, RunOptions(timeout_seconds=1800), cluster.address)
    plans = [small.plan("budget.steps=60", seed=seed) for seed in range(2)]
    expected = [supervise(plan, here, Heard(), RunOptions()) for plan in plans]
    outcome = run_batch(plans, executor, [])
    killer = Thread(target=_kill_when_training, args=(cluster, tmp_path / "far"))
    killer.start()
    found = {result.plan.seed: result for result in outcome}
    killer.join()
    for plan, wanted in zip(plans, expected, strict=True):
        record = found[plan.seed].record
        assert record is not None, found[plan.seed].error
        assert record.status == "ok", record.problem
        assert results(record) == results(wanted)
        assert files(store, plan) == files(here, plan)
        assert store.find(plan) == record


def _kill_when_training(cluster: Any, cache: Path) -> None:
    _wait_until_training(cache)
    cluster.remove_node(cluster.nodes_for_test[0], allow_graceful=False)


def _wait_until_training(cache: Path) -> None:
    end = time.monotonic() + 1800
    while time.monotonic() < end:
        for path in paths_named("events.jsonl", cache):
            if any(trains(event) for event in EventTail(path).new()):
                return
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "found"), [(None, 0), ("3", 3)])
def test_runs_are_as_urgent_as_without_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str | None, found: int
) -> None:
    """Ray starts its workers at 15, unless it is told otherwise."""
    import ray

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv(NICENESS, asked or "")
    if asked is None:
        monkeypatch.delenv(NICENESS)
    make_executor("ray", RunStore(tmp_path), RunOptions())
    try:
        nice = ray.remote(num_cpus=1)(lambda: os.getpriority(os.PRIO_PROCESS, 0))
        assert ray.get(nice.remote()) - os.getpriority(os.PRIO_PROCESS, 0) == found
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_a_run_that_the_command_ends_comes_back_and_says_why(
    cluster: Any, small: Small, tmp_path: Path
) -> None:
    cluster.remove_node(cluster.nodes_for_test[0], allow_graceful=False)
    store = RunStore(tmp_path / "runs")
    executor = RayExecutor(store, RunOptions(), "auto")
    plan, waiting = small.plan(), small.plan(seed=1)
    halt(tmp_path / "far", STEP_DONE)
    under_way, begun_never = (executor.submit(one, Heard()) for one in (plan, waiting))
    _wait_until_training(tmp_path / "far")
    executor.cancel_because("stopped by SIGHUP")
    record = under_way.result(timeout=1800)
    assert record.problem is not None
    assert (record.status, record.problem.message) == ("interrupted", "stopped by SIGHUP")
    assert store.find(plan) == record
    with pytest.raises(CancelledError):
        begun_never.result(timeout=1800)


def test_no_cluster_at_the_address_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no Ray cluster answers"):
        make_executor("ray", RunStore(tmp_path), RunOptions(), "127.0.0.1:1")
