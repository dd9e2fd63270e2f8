"""A study's next runs wait for what they need and for nothing else; its answer does not change."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.errors import StorageError
from harness.records.events import Hear
from harness.records.record import Problem, RunRecord
from harness.runs.listener import Listener
from harness.spec.plan import Plan
from harness.studies.agenda import Agenda, next_plans
from harness.studies.drive import Driver
from tests.store_records import record_of
from tests.studies.stub import Bench, StubExecutor, World
from tests.studies.test_drive import driver

WORLD = World(worse={"qlora_nf4": 0.05}, rates={"qlora_nf4": 2e-2})  # whose search is widened
PATIENCE = 600.0  # seconds until a run that should not have been waited for ends nevertheless


def stage(plan: Plan) -> str:
    """What a run is for: a trial, or the verdict at the default or at the best rate."""
    if plan.score.split == "validation":
        return "trial"
    return "best" if "learning_rate" in plan.variant else "default"


@dataclass
class Straggling(StubExecutor):
    """Runs that are ``held`` stay under way until something has come true, and say so."""

    held: Callable[[Plan], bool] = lambda _: False
    until: Callable[[], bool] = lambda: True
    was_held: bool = False
    in_vain: bool = False
    let_go_after: int = 0

    def submit(self, plan: Plan, hear: Hear) -> Future[RunRecord]:
        if self.was_held or not self.held(plan):
            return super().submit(plan, hear)
        self.was_held = True
        self.ran.append(plan)
        future: Future[RunRecord] = Future()
        future.set_running_or_notify_cancel()
        threading.Thread(target=self._hold, args=(plan, future), daemon=True).start()
        return future

    def _hold(self, plan: Plan, future: Future[RunRecord]) -> None:
        end = time.monotonic() + PATIENCE
        while not self.until():
            if time.monotonic() > end:
                self.in_vain = True
                break
            time.sleep(0.005)
        self.let_go_after = len(self.ran)
        future.set_result(self.run(plan))

    def has_run(self, variant: str, *stages: str) -> bool:
        found = {stage(one) for one in list(self.ran) if one.variant.startswith(variant)}
        return found >= set(stages)


def straggling(bench: Bench, held: Callable[[Plan], bool]) -> Straggling:
    return Straggling(bench.executor.store, bench.executor.world, held=held)


@dataclass
class Shuffled(StubExecutor):
    """Ends the runs that wait in an order of its own, one at a time."""

    seed: int = 0
    waiting: list[tuple[Plan, Future[RunRecord]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._change = threading.Condition()
        self._is_over = False
        threading.Thread(target=self._end_runs, daemon=True).start()

    def submit(self, plan: Plan, hear: Hear) -> Future[RunRecord]:  # noqa: ARG002
        if self.stop_after is not None and len(self.ran) >= self.stop_after:
            raise KeyboardInterrupt
        future: Future[RunRecord] = Future()
        with self._change:
            self.ran.append(plan)
            self.waiting.append((plan, future))
            self._change.notify()
        return future

    def _end_runs(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self.waiting or self._is_over)
                if not self.waiting:
                    return
                place = self._chance.randrange(len(self.waiting))
                plan, future = self.waiting.pop(place)
            if future.set_running_or_notify_cancel():
                future.set_result(self.run(plan))

    def cancel(self) -> None:
        with self._change:
            for _, future in self.waiting:
                future.cancel()
            self._is_over = True
            self._change.notify()


@pytest.mark.parametrize(
    ("slow", "budget"),
    [("lora_bf16", {}), ("qlora_nf4", {}), ("qlora_nf4", {"runs": 99})],
)
def test_a_variant_at_its_trial_does_not_hold_the_best_rate_of_another(
    tmp_path: Path, slow: str, budget: dict[str, float]
) -> None:
    quick = {"lora_bf16": "qlora_nf4", "qlora_nf4": "lora_bf16"}[slow]
    bench = Bench.of(tmp_path, World(rates={quick: 1e-3, slow: 1e-3}), budget=budget)
    executor = straggling(bench, lambda plan: plan.variant.startswith(slow))
    executor.until = lambda: executor.has_run(quick, "trial", "best")
    agenda = driver(bench, executor).drive()
    assert executor.was_held
    assert not executor.in_vain, "the other one waited"
    assert agenda.standings["best"].conclusion("qlora_nf4") is not None


def test_looks_at_the_default_do_not_wait_for_trials(tmp_path: Path) -> None:
    """They judge all variants at equal numbers of seeds, and no trial."""
    bench = Bench.of(tmp_path, World(seed_sd=0.02))
    executor = straggling(bench, lambda plan: stage(plan) == "trial")
    seeds = lambda: {one.seed for one in list(executor.ran) if stage(one) == "default"}  # noqa: E731
    executor.until = lambda: seeds() >= {0, 1, 2}
    driver(bench, executor).drive()
    assert executor.was_held
    assert not executor.in_vain


def ran(executor: StubExecutor) -> list[str]:
    return sorted(plan.fingerprint for plan in executor.ran)


@pytest.mark.parametrize(("seed", "stop_after"), [(1, None), (2, None), (3, 4), (4, 9), (5, 17)])
def test_the_answer_does_not_depend_on_the_order_in_which_runs_end(
    tmp_path: Path, seed: int, stop_after: int | None
) -> None:
    variants = ["lora_bf16", "qlora_nf4", "lora_bf16_r8", "base"]
    rounds = Bench.of(tmp_path / "rounds", WORLD, variants=variants)
    expected = rounds.finish()
    bench = Bench.of(tmp_path / "shuffled", WORLD, variants=variants)
    given: list[Plan] = []
    if stop_after is not None:
        executor = Shuffled(bench.executor.store, WORLD, seed=seed, stop_after=stop_after)
        with pytest.raises(KeyboardInterrupt):
            driver(bench, executor).drive()
        found = bench.findings()
        given += [plan for plan in executor.ran if found.store.find(plan) is not None]
    executor = Shuffled(bench.executor.store, WORLD, seed=seed)
    agenda = driver(bench, executor).drive()
    executor.cancel()
    executor.ran += given
    assert ran(executor) == ran(rounds.executor), "the same runs, none of them twice"
    for setting, standing in expected.standings.items():
        assert agenda.standings[setting].following == standing.following
    assert agenda.searches == expected.searches


@pytest.mark.parametrize("runs", [7, 12, 14])
@pytest.mark.parametrize("seed", [1, 2])
def test_what_a_budget_buys_does_not_depend_on_the_order_either(
    tmp_path: Path, runs: int, seed: int
) -> None:
    rounds = Bench.of(tmp_path / "rounds", WORLD, budget={"runs": runs})
    assert not rounds.agenda().has_room
    rounds.finish()
    bench = Bench.of(tmp_path / "shuffled", WORLD, budget={"runs": runs})
    executor = Shuffled(bench.executor.store, WORLD, seed=seed)
    agenda = driver(bench, executor).drive()
    executor.cancel()
    assert ran(executor) == ran(rounds.executor)
    assert len(executor.ran) == runs
    assert "used up" in agenda.stopped


@pytest.mark.parametrize(
    ("runs", "trials", "has_room"),
    [(29, 3, True), (28, 3, False), (9, 1, True), (8, 1, False)],
)
def test_a_budget_has_room_where_the_study_cannot_ask_for_more(
    tmp_path: Path, runs: int, trials: int, has_room: bool
) -> None:
    """Two variants have three trials, three beyond an edge, and four seeds at each rate."""
    variants, tune = ["lora_bf16", "qlora_nf4", "base"], {"trials": trials}
    bench = Bench.of(tmp_path, WORLD, variants=variants, tune=tune, budget={"runs": runs})
    assert bench.agenda().has_room == has_room


def is_first(plan: Plan) -> bool:
    return plan.variant == "qlora_nf4" and stage(plan) == "trial"


class Ended(Straggling):
    """The first trial of a variant ends with a problem, once."""

    kind = "killed"

    def run(self, plan: Plan) -> RunRecord:
        if not is_first(plan) or self.ran.count(plan) > 1:
            return super().run(plan)
        problem = Problem(kind=self.kind, phase="load", step=None, message="for a reason")
        record = record_of(plan, status="failed", problem=problem)
        self.store.write(record)
        return record


@pytest.mark.parametrize(("kind", "waits"), [("killed", False), ("FetchError", True)])
def test_a_run_that_was_killed_is_tried_again_beside_the_others(
    tmp_path: Path, kind: str, waits: bool
) -> None:
    """What a network failed is tried when the others have ended, as it may fail on and on."""
    bench = Bench.of(tmp_path, WORLD, variants=["lora_bf16", "lora_bf16_r8", "qlora_nf4"])
    executor = Ended(bench.executor.store, WORLD, held=lambda one: one.variant == "lora_bf16")
    executor.kind = kind
    tried = lambda: [is_first(one) for one in executor.ran[:]].count(True)  # noqa: E731
    executor.until = lambda: executor.has_run("lora_bf16_r8", "best") if waits else tried() == 2
    agenda = driver(bench, executor).drive()
    assert not executor.in_vain
    _, again = [place for place, one in enumerate(executor.ran) if is_first(one)]
    assert (again >= executor.let_go_after) == waits
    assert (agenda.finished, agenda.spent.failed) == (True, 0)


def test_a_store_that_fails_in_between_ends_no_run_that_is_under_way(tmp_path: Path) -> None:
    bench, asked = Bench.of(tmp_path, WORLD), []
    findings = bench.findings()
    executor = straggling(bench, lambda plan: plan.variant.startswith("lora_bf16"))
    executor.until = lambda: len(asked) > 1

    def agenda() -> Agenda:
        asked.append(len(executor.ran))
        if len(asked) > 1:
            raise StorageError("the store is away")
        return next_plans(bench.comparison, findings.find, bench.steering)

    with pytest.raises(StorageError, match="away"):
        Driver(agenda, findings, executor, lambda _: []).drive()
    assert executor.was_held
    assert not executor.in_vain
    assert len(asked) > 2, "in the round and after it"
    assert all(findings.store.find(plan).status == "ok" for plan in executor.ran)  # type: ignore[union-attr]


def test_where_nothing_is_under_way_the_next_round_is_planned_once(tmp_path: Path) -> None:
    """Runs that take no time end all at once, so it is a round that each look follows."""
    bench, asked, rounds = Bench.of(tmp_path, WORLD), [], []
    findings = bench.findings()

    def agenda() -> Agenda:
        asked.append(len(bench.executor.ran))
        return next_plans(bench.comparison, findings.find, bench.steering)

    def listeners(found: Agenda) -> list[Listener]:
        rounds.append(found)
        return []

    Driver(agenda, findings, bench.executor, listeners).drive()
    assert len(asked) == len(rounds) + 1
    assert asked == sorted(set(asked)), "each time after other runs"
