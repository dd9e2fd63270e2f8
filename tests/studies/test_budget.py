"""A study's budget lets in the runs that it can still afford, by what runs took so far."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.records.record import PhaseCost, RunRecord
from harness.records.store import RunFolder, StoredRun
from harness.spec.study import Spending
from harness.studies.answer import answer
from harness.studies.budget import Pace, Spent, covers, energy_of, spent_on, within
from harness.studies.findings import Job, Stage
from tests.planned import planned
from tests.store_records import record_of
from tests.studies.stub import Bench

PLAN = planned()


def job(arm: str, stage: Stage = "verdict", share: float = 1.0, seed: int = 0) -> Job:
    return Job(stage, arm, rate=1e-4, share=share, seed=seed, make=lambda: PLAN)


def record(seconds: float, joules: float | None = None, status: str = "ok") -> RunRecord:
    cost = PhaseCost(name="train", seconds=seconds, energy_joules=joules)  # type: ignore[call-arg]
    update = {"seconds": seconds, "status": status, "phases": (cost,)}
    return record_of(PLAN).model_copy(update=update)


def run(seconds: float, **more: object) -> StoredRun:
    return StoredRun(RunFolder(Path("run")), record(seconds, **more))  # type: ignore[arg-type]


def test_what_was_spent_counts_failures_and_only_measured_energy() -> None:
    settled = {
        job("a"): run(10.0, joules=100.0),
        job("b"): run(20.0),
        job("b", seed=1): run(5.0, joules=1.0, status="oom"),
    }
    found = spent_on(settled)
    assert (found.runs, found.failed, found.seconds, found.joules) == (3, 1, 35.0, 101.0)
    assert found.measured == 2
    assert spent_on({}).joules is None
    assert energy_of(record(1.0)) is None


def test_a_budget_of_runs_lets_in_what_is_left_of_it() -> None:
    jobs = [job("a"), job("b"), job("c")]
    assert within(Spending(runs=5), jobs, {job("z"): run(1.0)}) == (tuple(jobs), "")
    kept, stopped = within(Spending(runs=2), jobs, {job("z"): run(1.0)})
    assert (kept, stopped) == ((jobs[0],), "")
    kept, stopped = within(Spending(runs=1), jobs, {job("z"): run(1.0)})
    assert kept == ()
    assert "1 runs is used up" in stopped


def test_hours_let_in_runs_that_fit_by_the_pace_of_their_variant() -> None:
    settled = {job("slow"): run(3000.0), job("quick"): run(60.0)}
    jobs = [job("quick", seed=1), job("slow", seed=1)]
    kept, _ = within(Spending(hours=1.0), jobs, settled)
    assert kept == (jobs[0],), "9 minutes are left"
    assert within(Spending(hours=2.0), jobs, settled)[0] == tuple(jobs)
    kept, stopped = within(Spending(hours=0.86), jobs, settled)
    assert kept == ()
    assert "no room for a run (36.0 s are left, and quick takes about 60.0 s)" in stopped
    assert within(Spending(hours=0.85), jobs, settled)[1] == "the budget of 0.85 hours is used up"


def test_runs_that_are_yet_to_go_on_count_too() -> None:
    """Those that were ended before they were whole, when the hours were over or by Ctrl-C."""
    settled = {job("a"): run(1800.0)}
    assert within(Spending(hours=1.0), [job("b")], settled) == ((job("b"),), "")
    kept, stopped = within(Spending(hours=1.0), [job("b")], settled, {job("z"): 60.0})
    assert (kept, "29 min 00 s are left" in stopped) == ((), True)
    assert within(Spending(hours=1.0), [job("b")], {}, {job("z"): 3600.0})[0] == ()


@pytest.mark.parametrize(
    ("begun", "words"),
    [
        (1500.0, ""),
        (1260.0, "60.0 s are left, and a takes about 9 min 00 s more)"),
        (3000.0, "is used up"),
    ],
)
def test_a_run_that_goes_on_is_charged_what_it_still_needs(begun: float, words: str) -> None:
    """But never nothing: it is loaded again, and what came after its checkpoint is lost."""
    one = job("a", seed=1)
    hours = (1800 + begun + (300 if begun == 1500 else 60 if begun == 1260 else 0)) / 3600
    kept, stopped = within(Spending(hours=hours), [one], {job("a"): run(1800.0)}, {one: begun})
    assert (kept, words in stopped) == (() if words else (one,), True)
    assert Pace.of({job("a"): run(1800.0)}).more(one, 9000.0) == 180.0


@pytest.mark.parametrize(
    ("budget", "covered"),
    [
        (Spending(), True),
        (Spending(runs=7), True),
        (Spending(runs=6), False),
        (Spending(hours=1e6), False),  # which run ends first would say what others take
        (Spending(runs=7, hours=9.0), False),
    ],
)
def test_a_budget_covers_a_study_that_may_take_no_more(budget: Spending, covered: bool) -> None:
    assert covers(budget, 7) == covered


def test_while_nothing_is_known_one_run_of_each_variant_is_let_in() -> None:
    jobs = [job("a"), job("a", seed=1), job("b"), job("b", seed=1)]
    kept, _ = within(Spending(hours=1.0), jobs, {})
    assert [(one.arm, one.seed) for one in kept] == [("a", 0), ("b", 0)]


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        (job("a", "tune", 0.5, seed=9), 10.0),  # the same variant, stage and share
        (job("a", "verdict", seed=9), 20.0),  # the same variant, else
        (job("new", seed=9), 30.0),  # all runs
    ],
)
def test_a_run_is_expected_to_take_what_the_likest_runs_took(asked: Job, seconds: float) -> None:
    settled = {
        job("a", "tune", 0.5): run(10.0),
        job("a", "tune", 1.0): run(30.0),
        job("b"): run(50.0),
    }
    assert Pace.of(settled).seconds(asked) == pytest.approx(seconds)


def test_without_any_run_no_pace_is_known() -> None:
    assert Pace.of({}).seconds(job("a")) == 0.0
    assert Pace.of({}).of_arm("a", "verdict") == (None, None)


def test_a_run_with_a_phase_that_was_not_measured_has_no_energy() -> None:
    """What is unknown is not nothing: training that was resumed is the larger part of a run."""
    made = record(10.0, joules=100.0)
    resumed = made.phases[0].model_copy(update={"name": "train", "energy_joules": None})
    assert energy_of(made) == 100.0
    assert energy_of(made.model_copy(update={"phases": (*made.phases, resumed)})) is None
    assert energy_of(made.model_copy(update={"phases": ()})) is None


@pytest.mark.parametrize(
    ("spent", "words"),
    [
        (
            Spent(3, 1, 35.0, 2000.0, 2),
            "2.00 kJ measured in 2 of the runs (unknown for 1); 1 failed.",
        ),
        (Spent(3, 0, 35.0, 2e3, 3), "3 runs, 35.0 s of run time, 2.00 kJ measured."),
        (Spent(3, 0, 35.0, None), "3 runs, 35.0 s of run time, energy not measured."),
        (Spent(0, 0, 0.0, None), "0 runs, 0 ms of run time."),
        (Spent(0, 0, 0.0, None, begun=60.0), "and 60.0 s of runs that are yet to go on."),
    ],
)
def test_energy_that_was_not_measured_is_said(tmp_path: Path, spent: Spent, words: str) -> None:
    agenda = replace(Bench.of(tmp_path).agenda(), spent=spent)
    assert answer(agenda).cost.endswith(words)
