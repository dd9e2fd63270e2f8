"""A budget in hours holds while runs are under way, also where nobody knew how long they take."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.records.events import Hear, ProcessStarted, Pulse, RunStarted
from harness.records.record import PhaseCost, Problem, RunRecord
from harness.runs.listener import RunResult
from harness.spec.plan import Plan
from harness.studies.account import Account
from harness.studies.agenda import Agenda, next_plans
from harness.studies.drive import Driver
from tests.planned import planned
from tests.store_records import record_of
from tests.studies.stub import Bench, StubExecutor, World

WORSE = World(worse={"qlora_nf4": 0.05})
MINUTE, HOUR = 60.0, 3600.0


@dataclass
class Slow(StubExecutor):
    """Runs one after the other, of which some do not end by themselves.

    These tell of every minute, and are ended by ``cancel`` after ``cut`` seconds.
    """

    takes: Callable[[Plan], float] = lambda _: 10 * MINUTE
    cut: float = HOUR
    reason: str = ""
    waiting: list[tuple[Plan, Future[RunRecord]]] = field(default_factory=list)

    def submit(self, plan: Plan, hear: Hear) -> Future[RunRecord]:
        future: Future[RunRecord] = Future()
        if self.waiting:
            self.waiting.append((plan, future))
            return future
        self.ran.append(plan)
        future.set_running_or_notify_cancel()
        seconds = self.takes(plan)
        hear(ProcessStarted(time=0.0, clock=100.0, pid=1))
        if seconds < math.inf:
            record = self.run(plan).model_copy(update={"seconds": seconds})
            self.store.write(record)
            future.set_result(record)
            return future
        self.waiting.append((plan, future))
        for minute in range(600):
            hear(Pulse(time=0.0, clock=100.0 + MINUTE * minute))
        return future

    def cancel_because(self, reason: str) -> None:
        self.reason = reason
        self.cancel()

    def cancel(self) -> None:
        for plan, future in self.waiting:
            if not future.running():
                future.cancel()
                continue
            problem = Problem(kind="interrupted", phase="train", step=3, message=self.reason)
            record = record_of(plan, status="interrupted", seconds=self.cut, problem=problem)
            self.store.write(record)
            future.set_result(record)
        self.waiting.clear()


def drive(bench: Bench, executor: Slow, told: list[str] | None = None) -> Agenda:
    """A driver that has just come, with the time of runs that are yet to go on."""
    findings = bench.findings()
    tell = [].append if told is None else told.append

    def agenda() -> Agenda:
        return next_plans(bench.comparison, findings.find, bench.steering, findings.begun)

    return Driver(agenda, findings, executor, lambda _: [], tell).drive()


def made(folder: Path, hours: float, **more: object) -> tuple[Bench, Slow]:
    bench = Bench.of(folder, WORSE, budget={"hours": hours})
    return bench, Slow(bench.executor.store, WORSE, **more)  # type: ignore[arg-type]


def test_the_first_run_tells_how_many_fit(tmp_path: Path) -> None:
    """Without it the first run of every variant would have been begun."""
    bench, executor = made(tmp_path, 0.5, takes=lambda _: 20 * MINUTE)
    agenda = drive(bench, executor)
    assert len(executor.ran) == 1
    assert "0.5 hours has no room for a run (10 min 00 s are left" in agenda.stopped
    assert "takes about 20 min 00 s" in agenda.stopped


def test_beside_the_first_run_is_made_ready_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is alone in its round, and many follow."""
    foreseen: list[Plan] = []
    monkeypatch.setattr(Slow, "foresee", lambda _, plan: foreseen.append(plan), raising=False)
    bench, executor = made(tmp_path, 0.5, takes=lambda _: 20 * MINUTE)
    second = bench.agenda().jobs[1].fingerprint
    drive(bench, executor)
    assert [plan.fingerprint for plan in foreseen] == [second]


def test_a_round_ends_where_a_slow_variant_outgrows_it(tmp_path: Path) -> None:
    """By the first run, of ten minutes, ten more fit into two hours; the second takes fifty."""
    bench, _ = made(tmp_path, 2.0)
    jobs = Bench.of(tmp_path).agenda().jobs[:5]  # as if there were no budget
    account = Account(bench.agenda(), jobs, bench.findings())
    for job, minutes, outgrown in zip(jobs, (10, 50, 10), (False, True, True), strict=False):
        account.hear(job.plan, ProcessStarted(time=0.0, clock=100.0, pid=1))
        account.hear(job.plan, Pulse(time=0.0, clock=100.0 + MINUTE * minutes))
        assert not account.is_used_up
        record = record_of(job.plan, seconds=MINUTE * minutes)
        account.result(RunResult(job.plan, record=record))
        assert account.is_outgrown == outgrown


def test_a_run_that_goes_on_spends_its_new_time_alone(tmp_path: Path) -> None:
    """Its first hour was counted before the round began."""
    bench, _ = made(tmp_path, 2.0)
    job, other = bench.agenda().jobs[:2]
    account = Account(bench.agenda(), [job, other], bench.findings())
    cost = PhaseCost(name="train", seconds=1.5 * HOUR)  # type: ignore[call-arg]
    record = record_of(job.plan, seconds=0.5 * HOUR, resumed=1, phases=(cost,))
    account.result(RunResult(job.plan, record=record))
    assert not account.is_outgrown, "the other run, of an hour and a half, fits exactly"


def test_runs_that_train_as_one_share_their_time(tmp_path: Path) -> None:
    bench, _ = made(tmp_path, 1.0)
    jobs = bench.agenda().jobs[:2]
    for together, over in ((1, True), (2, False)):
        account = Account(bench.agenda(), jobs, bench.findings(), together)
        for job in jobs:
            account.hear(job.plan, ProcessStarted(time=0.0, clock=0.0, pid=1))
            account.hear(job.plan, Pulse(time=0.0, clock=40 * MINUTE))
        assert account.is_used_up == over


def test_a_run_under_way_when_the_hours_are_over_ends_and_goes_on_with_more(
    tmp_path: Path,
) -> None:
    told: list[str] = []
    bench, endless = made(tmp_path, 1.0, takes=lambda _: math.inf)
    agenda = drive(bench, endless, told)
    assert endless.reason == "stopped because the study's budget of 1 hour is used up"
    assert len(told) == 1
    assert "budget of 1 hour is used up: with more of it, runs go on from where" in told[0]
    assert (agenda.jobs, agenda.spent.runs, agenda.spent.begun) == ((), 0, HOUR)
    assert agenda.stopped == "the budget of 1 hour is used up"
    assert drive(bench, endless).stopped == agenda.stopped, "typed again, nothing is begun"
    more, executor = made(tmp_path, 3.0, takes=lambda _: 50 * MINUTE)
    drive(more, executor)
    assert [plan.fingerprint for plan in endless.ran] == [executor.ran[0].fingerprint]
    assert len(executor.ran) == 3, "the hour that was spent on it is its own"


@pytest.mark.parametrize(("resumed", "seconds"), [(0, 100.0), (1, 340.0)])
def test_a_run_that_went_on_took_the_time_of_both_attempts(resumed: int, seconds: float) -> None:
    load = PhaseCost(name="load", seconds=40)  # type: ignore[call-arg]
    costs = (load, load.model_copy(update={"name": "train", "seconds": 300.0}))
    record = record_of(planned(), seconds=100.0, resumed=resumed, phases=costs)
    assert record.all_seconds == seconds


@dataclass
class Silent(Slow):
    """Runs of a cluster: all under way from the start, and silent until they end, one by one."""

    def submit(self, plan: Plan, hear: Hear) -> Future[RunRecord]:
        future: Future[RunRecord] = Future()
        future.set_running_or_notify_cancel()
        hear(RunStarted(time=0.0, clock=100.0, host="a cluster"))
        self.ran.append(plan)
        if self.takes(plan) == math.inf:
            self.waiting.append((plan, future))
            return future
        record = self.run(plan).model_copy(update={"seconds": self.takes(plan)})
        self.store.write(record)
        future.set_result(record)
        return future


def test_hours_are_kept_where_runs_are_silent_until_they_end(tmp_path: Path) -> None:
    """As under SLURM and Ray: the run that uses the hours up ends the others."""
    bench, _ = made(tmp_path, 1.0)
    executor = Silent(bench.executor.store, WORSE, cut=5 * MINUTE)
    took = {1: 10 * MINUTE, 2: 50 * MINUTE}
    executor.takes = lambda _: took.get(len(executor.ran), math.inf)
    told: list[str] = []
    agenda = drive(bench, executor, told)
    assert executor.reason == "stopped because the study's budget of 1 hour is used up"
    assert len(told) == 1
    assert (agenda.jobs, agenda.spent.runs) == ((), 2)
    assert agenda.spent.begun == 5 * MINUTE * (len(executor.ran) - 2) > 0


@pytest.mark.parametrize("hours", [3.2, 4.3])
def test_a_run_that_goes_on_needs_what_it_has_not_had(tmp_path: Path, hours: float) -> None:
    """Two runs took an hour each, and the third was ended after 55 minutes."""
    bench, _ = made(tmp_path, hours)
    findings = bench.findings()
    first, second, third, fourth = Bench.of(tmp_path).agenda().jobs[:4]
    for job in (first, second):
        bench.executor.store.write(record_of(job.plan, seconds=HOUR))
    problem = Problem(kind="interrupted", phase="train", step=3, message="stopped by SIGTERM")
    bench.executor.store.write(
        record_of(third.plan, status="interrupted", seconds=55 * MINUTE, problem=problem)
    )
    agenda = next_plans(bench.comparison, findings.find, bench.steering, findings.begun)
    assert agenda.spent.begun == 55 * MINUTE
    assert agenda.jobs == ((third,) if hours < 4 else (third, fourth)), "17 or 83 minutes are left"
    account = Account(agenda, [third, fourth], findings)
    account.result(RunResult(fourth.plan, record=record_of(fourth.plan, seconds=HOUR)))
    assert account.is_outgrown == (hours < 4), "23 minutes are left for the last five"
