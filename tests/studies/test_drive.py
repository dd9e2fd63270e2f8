"""A driver runs what is wanted, leaves to others what is theirs, and can die at any moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.errors import RunInUse, UserError
from harness.records.events import Event, Hear, RunStarted
from harness.records.record import Problem, RunRecord
from harness.records.store import RunStore
from harness.runs.ending import OUT_OF_TIME
from harness.runs.listener import Listener, RunResult
from harness.runs.lock import held
from harness.runs.stop import Stop
from harness.spec.plan import Plan
from harness.studies import drive
from harness.studies.agenda import Agenda, next_plans
from harness.studies.drive import Driver, Shard
from harness.studies.steering import Kind, decide, read_steering
from tests.hears_why import HearsWhy
from tests.store_records import record_of
from tests.studies.stub import Bench, StubExecutor, World

WORSE = World(worse={"qlora_nf4": 0.05})


def driver(bench: Bench, executor: StubExecutor | None = None) -> Driver:
    """A driver that has just come."""
    findings = bench.findings()

    def agenda() -> object:
        return next_plans(bench.comparison, findings.find, bench.steering)

    return Driver(agenda, findings, executor or bench.executor, lambda _: [])  # type: ignore[arg-type]


@pytest.mark.parametrize("deaths", [(1,), (3, 4), (2, 2, 2, 5)])
def test_a_driver_killed_anywhere_goes_on(tmp_path: Path, deaths: tuple[int, ...]) -> None:
    whole = Bench.of(tmp_path / "whole", WORSE)
    expected = driver(whole).drive()
    bench = Bench.of(tmp_path / "killed", WORSE)
    ran = 0
    for after in deaths:
        executor = StubExecutor(bench.executor.store, WORSE, stop_after=after)
        with pytest.raises(KeyboardInterrupt):
            driver(bench, executor).drive()
        ran += len(executor.ran)
    found = driver(bench).drive()
    assert found.standings["best"].following == expected.standings["best"].following
    assert ran + len(bench.executor.ran) == len(whole.executor.ran), "nothing is run twice"


def test_shards_share_the_runs_and_agree(tmp_path: Path) -> None:
    whole = Bench.of(tmp_path / "whole", WORSE)
    expected = driver(whole).drive()
    bench = Bench.of(tmp_path / "parts", WORSE)
    for _ in range(8):
        for number in (1, 2, 3):
            found = driver(bench).drive(Shard(number, 3))
    assert found.finished
    assert len(bench.executor.ran) == len(whole.executor.ran)
    assert found.standings["best"].following == expected.standings["best"].following


class Explained(HearsWhy, StubExecutor):
    """Hears why it is cancelled."""


@pytest.mark.parametrize(
    ("number", "told"), [(signal.SIGINT, ""), (signal.SIGTERM, "stopped by SIGTERM")]
)
def test_a_signal_between_two_results_is_the_reason_that_records_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, told: str
) -> None:
    bench = Bench.of(tmp_path, WORSE)
    executor = Explained(bench.executor.store, WORSE)
    monkeypatch.setattr(Driver, "_take", lambda *_: signal.raise_signal(number))
    with pytest.raises(KeyboardInterrupt):
        driver(bench, executor).drive()
    assert executor.reason == told


class Elsewhere(StubExecutor):
    """Another driver holds every second run, and finishes it at once."""

    def submit(self, plan: Plan, hear: Hear) -> Future[RunRecord]:
        if len(self.ran) % 2:
            return super().submit(plan, hear)
        self.ran.append(plan)
        self.run(plan)
        future: Future[RunRecord] = Future()
        future.set_exception(RunInUse("process 1 on elsewhere is already running this plan"))
        return future


def test_what_another_driver_runs_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "POLL_SECONDS", 0.0)
    bench = Bench.of(tmp_path, WORSE)
    executor = Elsewhere(RunStore(tmp_path / "runs"), WORSE)
    assert driver(bench, executor).drive().finished
    assert len({plan.fingerprint for plan in executor.ran}) == len(executor.ran)


def test_a_driver_waits_quietly_for_runs_that_another_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "POLL_SECONDS", 0.0)
    bench = Bench.of(tmp_path, variants=["base", "base_nf4"], reference="base", tune={"trials": 1})
    findings, told, rounds = bench.findings(), [], []
    looks = iter(range(100))
    with ExitStack() as another:
        for job in bench.agenda().jobs:
            folder = bench.executor.store.folder(job.plan)
            another.enter_context(held(folder, lambda _: None, Stop(), wait=False))

        def agenda() -> Agenda:
            if next(looks) == 5:  # the other driver dies
                another.close()
            return next_plans(bench.comparison, findings.find, bench.steering)

        def listeners(found: Agenda) -> list[Listener]:
            rounds.append(len(found.jobs))
            return []

        last = Driver(agenda, findings, bench.executor, listeners, told.append).drive()
    assert last.finished
    assert rounds == [2], "nothing is announced while there is nothing to run"
    assert len(told) == 1
    assert f"process {os.getpid()} on " in told[0]


class Ends(StubExecutor):
    """Every run ends with the same problem."""

    kind = "killed"
    why = ""

    def cancel_because(self, reason: str) -> None:
        self.why = reason

    def run(self, plan: Plan) -> RunRecord:
        problem = Problem(kind=self.kind, phase="load", step=None, message="for a reason")
        status = "interrupted" if self.kind == "abandoned" else "failed"
        record = record_of(plan, status=status, problem=problem)
        self.store.write(record)
        return record


@pytest.mark.parametrize("kind", ["killed", "abandoned"])
def test_a_run_that_is_killed_is_tried_again_but_not_for_ever(tmp_path: Path, kind: str) -> None:
    bench = Bench.of(tmp_path, variants=["base", "base_nf4"], reference="base", tune={"trials": 1})
    executor = Ends(bench.executor.store, WORSE)
    executor.kind = kind
    driver(bench, executor).drive()
    assert [plan.variant for plan in executor.ran].count("base_nf4") == 3
    after = bench.agenda()
    assert after.finished, "whoever comes later knows it too"
    assert after.spent.failed == 2
    driver(bench, executor).drive()
    assert len(executor.ran) == 6
    log = bench.findings().log
    log.write_text("")
    assert len(bench.agenda().jobs) == 2, "without its line a run is tried again"


class Preempts(StubExecutor):
    """A cluster that asks each run to stop four times before it lets it end."""

    def run(self, plan: Plan) -> RunRecord:
        if self.ran.count(plan) > 4:
            return super().run(plan)
        record = record_of(plan, status="interrupted")
        self.store.write(record)
        return record


def test_a_run_that_is_preempted_is_continued_as_often_as_it_takes(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path, variants=["base", "base_nf4"], reference="base", tune={"trials": 1})
    agenda = driver(bench, Preempts(bench.executor.store, WORSE)).drive()
    assert (agenda.finished, agenda.spent.runs, agenda.spent.failed) == (True, 2, 0)


def test_a_mistake_that_every_run_would_make_ends_the_study_at_once(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path)
    executor = Ends(bench.executor.store, WORSE)
    executor.kind = "CorpusError"
    with pytest.raises(UserError, match="for a reason"):
        driver(bench, executor).drive()
    assert "for a reason" in executor.why, "runs beside it are ended for that"
    assert bench.findings().find(bench.agenda().jobs[0]) is None


class Unreachable(Ends):
    """Weights that cannot be fetched until the network is back."""

    kind = "FetchError"
    back = False

    def run(self, plan: Plan) -> RunRecord:
        return StubExecutor.run(self, plan) if self.back else super().run(plan)


def test_a_network_that_fails_every_run_ends_the_study_and_no_variant(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path)
    executor = Unreachable(bench.executor.store, WORSE)
    first_round = len(bench.agenda().jobs)
    with pytest.raises(UserError, match="3 runs after each other failed") as told:
        driver(bench, executor).drive()
    assert "for a reason" in str(told.value)
    assert len(executor.ran) == first_round, "no other round is begun"
    executor.back = True
    agenda = driver(bench, executor).drive()
    assert agenda.finished
    assert agenda.spent.failed == 0, "what the network failed is tried again"


class OneSlot(StubExecutor, Listener):
    """Begins a run when the one before it has ended; a decision is taken during the second."""

    def __init__(self, bench: Bench, decision: Callable[[], None]) -> None:
        super().__init__(bench.executor.store, bench.executor.world)
        self._decision = decision
        self._waiting: list[tuple[Plan, Future[RunRecord]]] = []

    def submit(self, plan: Plan, hear: Hear) -> Future[RunRecord]:
        future: Future[RunRecord] = Future()
        if not self._waiting:
            hear(RunStarted.now(host="here"))
        self._waiting.append((plan, future))
        return future

    def hear(self, plan: Plan, event: Event) -> None:  # noqa: ARG002
        self._next()

    def result(self, result: RunResult) -> None:  # noqa: ARG002
        self._next()
        if len(self.ran) == 2:  # while that one is under way
            self._decision()

    def _next(self) -> None:
        while self._waiting:
            plan, future = self._waiting.pop(0)
            if future.set_running_or_notify_cancel():
                self.ran.append(plan)
                future.set_result(self.run(plan))
                return

    def end(self) -> None:
        self._waiting.clear()


@pytest.mark.parametrize(("kind", "value"), [("drop", "qlora_nf4"), ("more_seeds", "1")])
def test_a_decision_counts_from_the_next_run_on(tmp_path: Path, kind: Kind, value: str) -> None:
    """Not from the next round: the first one has all trials of all variants."""
    bench = Bench.of(tmp_path, WORSE, tune={"trials": 5})
    findings = bench.findings()
    executor = OneSlot(bench, lambda: decide(findings.log, (kind, value)))
    rounds: list[int] = []

    def agenda() -> Agenda:
        found = next_plans(bench.comparison, findings.find, read_steering(findings.log))
        rounds.append(len(executor.ran))
        return found

    Driver(agenda, findings, executor, lambda _: [executor]).drive()
    assert rounds[:2] == [0, 2]
    if kind == "drop":
        assert not [plan for plan in executor.ran[2:] if plan.variant.startswith("qlora_nf4")]


def test_a_score_that_decides_and_is_not_taken_ends_the_study_at_its_first_run(
    tmp_path: Path,
) -> None:
    bench = Bench.of(tmp_path, primary="perplexty", tune={"trials": 1})
    with pytest.raises(UserError, match="'perplexty', was not taken") as failed:
        driver(bench, bench.executor).drive()
    assert "expected: one of held_out perplexity" in str(failed.value)
    assert len(bench.executor.ran) == 4, "two seeds of two variants: no second round"


class HasNoTimeLeft(StubExecutor):
    """A cluster whose jobs reach their time limit; the first ``writes`` of them leave a state."""

    writes = 0

    def run(self, plan: Plan) -> RunRecord:
        checkpoint = self.store.folder(plan).attempt.checkpoint
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / f"training.{len(self.ran)}.part").touch()  # each ends while it writes one
        if self.ran.count(plan) <= self.writes:
            state = checkpoint / "state.pt"
            state.write_text("")
            os.utime(state, ns=(self.ran.count(plan), self.ran.count(plan)))
        message = "SLURM job 7 reached its time limit"
        problem = Problem(kind=OUT_OF_TIME.kind, phase="train", step=3, message=message)
        record = record_of(plan, status="interrupted", problem=problem)
        self.store.write(record)
        return record


@pytest.mark.parametrize("writes", [0, 1, 5])
def test_a_run_whose_jobs_end_before_they_have_come_further_is_told_and_given_up(
    tmp_path: Path, writes: int
) -> None:
    """One that has come further each time goes on, as one that is preempted does."""
    bench = Bench.of(tmp_path, variants=["base", "base_nf4"], reference="base", tune={"trials": 1})
    executor, told = HasNoTimeLeft(bench.executor.store, WORSE), list[str]()
    executor.writes = writes
    findings = bench.findings()

    def agenda() -> Agenda:
        return next_plans(bench.comparison, findings.find, bench.steering)

    last = Driver(agenda, findings, executor, lambda _: [], told.append).drive()  # type: ignore[arg-type]
    assert [plan.variant for plan in executor.ran].count("base_nf4") == max(2, writes + 1)
    assert (last.finished, last.spent.failed) == (True, 2)
    words = "reached its time limit twice and came no further the second time than the first"
    assert [words in one for one in told] == [True, True]
