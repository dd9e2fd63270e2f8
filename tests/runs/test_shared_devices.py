"""Runs at once share a device's memory by what was predicted of them."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from contextlib import ExitStack

import pytest

from harness.errors import UserError
from harness.runs.shared_devices import SharedDevices, predicted_bytes
from harness.runs.stop import Stop
from harness.spec.device import Device
from tests.planned import planned

GIB = 1 << 30
PLAN = planned()  # on a device of 24 GiB


def test_a_run_waits_until_it_fits_beside_the_others() -> None:
    devices, entered = SharedDevices(lambda _: 10 * GIB), threading.Event()

    def third() -> None:
        with devices.beside(PLAN, Stop()):
            entered.set()

    with ExitStack() as two:
        two.enter_context(devices.beside(PLAN, Stop()))
        two.enter_context(devices.beside(PLAN, Stop()))
        waiting = threading.Thread(target=third)
        waiting.start()
        assert not entered.wait(0.3)
    assert entered.wait(300)
    waiting.join()


def test_runs_are_spread_over_gpus_the_emptiest_first() -> None:
    devices = SharedDevices(lambda _: 10 * GIB, ["0", "3"])
    with ExitStack() as runs:
        found = [runs.enter_context(devices.beside(PLAN, Stop())) for _ in range(4)]
        assert sorted(found[:2]) == ["0", "3"]
        assert sorted(found) == ["0", "0", "3", "3"], "two fit on each"
        stop = Stop()
        stop.ask()
        with pytest.raises(CancelledError):
            runs.enter_context(devices.beside(PLAN, stop))


def test_runs_that_are_alone_on_their_gpus_need_no_prediction() -> None:
    devices = SharedDevices(lambda _: None, ["0", "1"], alone=True)
    asked = Stop()
    asked.ask()
    with ExitStack() as runs:
        assert [runs.enter_context(devices.beside(PLAN, Stop())) for _ in range(2)] == ["0", "1"]
        with pytest.raises(CancelledError):
            runs.enter_context(devices.beside(PLAN, asked))
    with devices.beside(PLAN, asked) as gpu:
        assert gpu == "0", "what has ended makes room"


def test_a_run_that_is_divided_gets_as_many_gpus() -> None:
    plan = planned("lora_bf16", "training.devices=2", "training.micro_batch_size=1")
    with SharedDevices(lambda _: GIB, ["0", "1", "2"]).beside(plan, Stop()) as gpus:
        assert gpus == "0,1"
    with (
        pytest.raises(UserError, match="divided over 2 devices"),
        SharedDevices(lambda _: GIB, ["0"]).beside(plan, Stop()),
    ):
        pass


def test_one_alone_is_let_in_however_large_it_is() -> None:
    with SharedDevices(lambda _: 100 * GIB).beside(PLAN, Stop()):
        pass


def test_what_cannot_be_predicted_gets_a_device_to_itself() -> None:
    unknown = planned("lora_bf16")
    devices = SharedDevices(lambda plan: None if plan == unknown else GIB)
    stop = Stop()
    stop.ask()
    with devices.beside(unknown, Stop()), pytest.raises(CancelledError), devices.beside(PLAN, stop):
        pass
    with devices.beside(PLAN, Stop()), pytest.raises(CancelledError), devices.beside(unknown, stop):
        pass


def test_what_cannot_be_predicted_on_an_unknown_device_is_refused() -> None:
    nowhere = planned(device=Device(kind="cuda", name="?", memory_bytes=None, bfloat16=True))
    with (
        pytest.raises(UserError, match="cannot be predicted"),
        SharedDevices(lambda _: None).beside(nowhere, Stop()),
    ):
        pass


def test_plans_that_differ_by_seed_or_rate_are_predicted_once() -> None:
    asked = []

    def predict(plan: object) -> int:
        asked.append(plan)
        return GIB

    devices = SharedDevices(predict)
    for plan in (PLAN, planned(seed=3), planned("qlora_nf4", "training.learning_rate=1e-3")):
        with devices.beside(plan, Stop()):
            pass
    assert len(asked) == 1
    with devices.beside(planned("qlora_nf4", "training.micro_batch_size=2"), Stop()):
        pass
    assert len(asked) == 2


def test_the_prediction_is_the_planners_own() -> None:
    found = predicted_bytes(PLAN)
    assert found is not None
    assert found > GIB / 4
