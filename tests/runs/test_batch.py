"""A batch gives every plan a result, tells listeners all of it, and ends what it has begun."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Barrier
from threading import Event as Happening

import pytest

from harness.errors import StorageError, UnknownName, UserError
from harness.records.events import Event, Hear, Note, RunStarted
from harness.records.record import RunRecord
from harness.records.store import RunStore
from harness.runs import executor as executor_module
from harness.runs.batch import Demand, run_batch
from harness.runs.executor import LocalExecutor, make_executor
from harness.runs.listener import Listener, RunResult
from harness.runs.shared_devices import SharedDevices
from harness.runs.stop import Stop
from harness.spec.device import Device, DeviceChoice
from harness.spec.gpus import planned_gpu
from harness.spec.plan import Plan
from tests.hears_why import HearsWhy
from tests.planned import CPU, planned
from tests.store_records import record_of

PLANS = [planned(seed=seed) for seed in range(3)]


class Heard(Listener):
    """Remembers everything in one list."""

    def __init__(self) -> None:
        self.all: list[object] = []

    def begin(self, plans: Sequence[Plan]) -> None:
        self.all.append(("begin", len(plans)))

    def more(self, plans: Sequence[Plan]) -> None:
        self.all.append(("more", len(plans)))

    def hear(self, plan: Plan, event: Event) -> None:
        self.all.append((plan.seed, event.kind))

    def result(self, result: RunResult) -> None:
        self.all.append((result.plan.seed, "error" if result.error else "record"))

    def lost(self, name: str, error: Exception) -> None:
        self.all.append(("lost", name, str(error)))

    def end(self) -> None:
        self.all.append("end")


class Immediate:
    """An executor that makes records up, at once; seeds in ``errors`` cannot be run."""

    def __init__(self, errors: dict[int, Exception] | None = None) -> None:
        self._errors = errors or {}
        self.cancelled = 0

    def device(self, kind: DeviceChoice) -> Device:  # noqa: ARG002
        return CPU

    def submit(self, plan: Plan, hear: Hear) -> Future[RunRecord]:
        hear(RunStarted.now(host="nowhere"))
        future: Future[RunRecord] = Future()
        if plan.seed in self._errors:
            future.set_exception(self._errors[plan.seed])
        else:
            future.set_result(record_of(plan))
        return future

    def cancel(self) -> None:
        self.cancelled += 1


def test_every_plan_gets_a_result_and_listeners_hear_all_of_it_in_order() -> None:
    heard = Heard()
    results = list(run_batch(PLANS, Immediate(), [heard]))
    assert [result.record for result in results] == [record_of(plan) for plan in PLANS]
    each = [(seed, what) for seed in range(3) for what in ("run_start", "record")]
    assert heard.all == [("begin", 3), *each, "end"]


def test_a_plan_that_cannot_be_run_is_a_result_and_the_others_go_on() -> None:
    error = StorageError("no room")
    results = list(run_batch(PLANS, Immediate({1: error})))
    assert [result.error for result in results] == [None, error, None]
    assert [result.record is None for result in results] == [False, True, False]


def test_a_defect_of_an_executor_is_no_result() -> None:
    heard = Heard()
    with pytest.raises(ZeroDivisionError):
        list(run_batch(PLANS, Immediate({1: ZeroDivisionError()}), [heard]))
    assert heard.all[-1] == "end"


def test_no_plans_are_a_batch_too() -> None:
    heard = Heard()
    assert list(run_batch([], Immediate(), [heard])) == []
    assert heard.all == [("begin", 0), "end"]


@pytest.mark.parametrize("method", ["begin", "hear", "result"])
def test_a_listener_that_fails_is_left_out_and_the_others_are_told(method: str) -> None:
    class Tracker(Listener):
        calls = 0

    def fail(self: Tracker, *_: object) -> None:
        type(self).calls += 1
        raise ConnectionError("the server is away")

    setattr(Tracker, method, fail)
    heard = Heard()
    assert len(list(run_batch(PLANS, Immediate(), [Tracker(), heard]))) == 3
    assert heard.all.count(("lost", "Tracker", "the server is away")) == 1
    assert Tracker.calls == 1
    assert heard.all[-1] == "end"


def test_a_batch_that_is_left_early_ends_what_is_under_way() -> None:
    executor = Waiting()
    results = run_batch(PLANS, executor)
    executor.finish_first = True
    assert next(results).record is not None
    results.close()
    assert executor.cancelled == 1


class Waiting(Immediate):
    """An executor whose runs go on until they are cancelled."""

    finish_first = True

    def __init__(self) -> None:
        super().__init__()
        self._futures: list[tuple[Plan, Future[RunRecord]]] = []

    def submit(self, plan: Plan, hear: Hear) -> Future[RunRecord]:
        if self.finish_first and not self._futures:
            future = super().submit(plan, hear)
        else:
            hear(Note.now(text="working"))
            future = Future()
        self._futures.append((plan, future))
        return future

    def cancel(self) -> None:
        super().cancel()
        for plan, future in self._futures:
            if not future.done():
                future.set_result(record_of(plan, status="interrupted"))


class Explained(HearsWhy, Waiting):
    """One that hears why it is cancelled."""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (UserError("no such data"), "stopped because the command ended on an error: no such data"),
        (GeneratorExit(), "stopped because the command that started this run ended"),
        (KeyboardInterrupt(), ""),
        (KeyboardInterrupt("stopped by SIGHUP"), "stopped by SIGHUP"),
    ],
)
def test_runs_that_are_ended_beside_an_error_hear_of_it(error: BaseException, told: str) -> None:
    executor = Explained()
    results = run_batch(PLANS, executor)
    next(results)
    with pytest.raises(type(error)):
        results.throw(error)
    assert executor.reason == told
    assert executor.cancelled == 1


def test_a_run_of_unknown_memory_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the device to itself: first, it would keep all others waiting."""
    begun: list[str] = []
    both, one = Barrier(2), Happening()

    def supervised(plan: Plan, *_: object) -> RunRecord:
        begun.append(plan.variant)
        one.set()
        if plan.variant != "lora_eva":
            both.wait(600)
        return record_of(plan)

    def submit(plan: Plan, hear: Hear) -> Future[RunRecord]:
        future = put(plan, hear)
        if plan is plans[0]:
            one.wait(0.3)  # the others are asked for later
        return future

    monkeypatch.setattr(executor_module, "supervise", supervised)
    gpu = planned_gpu("h100")
    plans = [planned(name, device=gpu) for name in ("lora_eva", "lora_bf16", "qlora_nf4")]
    executor = LocalExecutor(RunStore(tmp_path), slots=2)
    put = executor.submit
    monkeypatch.setattr(executor, "submit", submit)
    known = SharedDevices(lambda plan: None if plan.variant == "lora_eva" else 1 << 30)
    monkeypatch.setattr(executor, "_devices", known)
    found = list(run_batch(plans, executor))
    assert begun[-1] == "lora_eva"
    assert sorted(result.plan.variant for result in found) == sorted(begun)


class Enough(Demand):
    """Is met at once, and would have more otherwise."""

    def enough(self) -> bool:
        return True

    def more(self) -> Sequence[Plan]:
        return [planned(seed=7)]


class Follows(Demand):
    """One plan more for every result, until all are given."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self.plans = list(plans)

    def more(self) -> Sequence[Plan]:
        return [self.plans.pop(0)] if self.plans else []


def test_plans_that_follow_are_run_in_the_same_batch() -> None:
    heard, more = Heard(), [planned(seed=seed) for seed in (7, 8)]
    found = list(run_batch(PLANS, Immediate({8: UserError("no")}), [heard], demand=Follows(more)))
    assert [result.plan.seed for result in found] == [0, 1, 2, 7, 8]
    assert [one for one in heard.all if one[0] == "more"] == [("more", 1), ("more", 1)]
    assert heard.all[-1] == "end"


def test_once_it_is_enough_no_more_are_begun_and_none_is_stopped() -> None:
    executor, heard = Waiting(), Heard()
    found = list(run_batch(PLANS, executor, [heard], demand=Enough()))
    assert [result.plan.seed for result in found] == [0]
    assert executor.cancelled == 0
    assert heard.all[-1] == "end"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_is_passed_on_after_the_records_are_there(number: int) -> None:
    class Interrupts(Heard):
        def hear(self, plan: Plan, event: Event) -> None:
            super().hear(plan, event)
            if isinstance(event, Note) and plan.seed == 1:
                signal.raise_signal(number)

    heard, executor, before = Interrupts(), Waiting(), signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        list(run_batch(PLANS, executor, [heard]))
    assert executor.cancelled == 1
    assert [item for item in heard.all if item[1] == "record"] == [
        (0, "record"),
        (1, "record"),
        (2, "record"),
    ]
    assert heard.all[-1] == "end"
    assert signal.getsignal(number) == before


def test_stop_means_wind_up_first_and_at_once_when_it_is_asked_again() -> None:
    stop = Stop()
    assert (stop.asked, stop.at_once) == (False, False)
    stop.ask()
    assert (stop.asked, stop.at_once) == (True, False)
    stop.ask()
    assert (stop.asked, stop.at_once) == (True, True)


def test_an_executor_is_known_by_its_name(tmp_path: Path) -> None:
    assert isinstance(make_executor("local", RunStore(tmp_path)), LocalExecutor)
    with pytest.raises(UnknownName, match="unknown executor 'locl'"):
        make_executor("locl", RunStore(tmp_path))
