"""Runs at once share a device's memory by what was predicted of them."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from harness.errors import UserError
from harness.runs.room import Room, predicted_bytes
from harness.runs.stop import Stop
from tests.planned import planned

GIB = 1 << 30
PLAN = planned()  # on a device of 24 GiB


def test_a_run_waits_until_it_fits_beside_the_others() -> None:
    room, entered = Room(lambda _: 10 * GIB), threading.Event()

    def third() -> None:
        with room.beside(PLAN, Stop()):
            entered.set()

    with ExitStack() as two:
        two.enter_context(room.beside(PLAN, Stop()))
        two.enter_context(room.beside(PLAN, Stop()))
        waiting = threading.Thread(target=third)
        waiting.start()
        assert not entered.wait(0.3)
    assert entered.wait(10)
    waiting.join()


def test_one_alone_is_let_in_however_large_it_is() -> None:
    with Room(lambda _: 100 * GIB).beside(PLAN, Stop()):
        pass


def test_what_cannot_be_predicted_is_refused() -> None:
    with (
        pytest.raises(UserError, match="cannot be predicted"),
        Room(lambda _: None).beside(PLAN, Stop()),
    ):
        pass


def test_plans_that_differ_by_seed_or_rate_are_predicted_once() -> None:
    asked = []

    def predict(plan: object) -> int:
        asked.append(plan)
        return GIB

    room = Room(predict)
    for plan in (PLAN, planned(seed=3), planned("qlora_nf4", "training.learning_rate=1e-3")):
        with room.beside(plan, Stop()):
            pass
    assert len(asked) == 1
    with room.beside(planned("qlora_nf4", "training.micro_batch_size=2"), Stop()):
        pass
    assert len(asked) == 2


def test_the_prediction_is_the_planners_own() -> None:
    found = predicted_bytes(PLAN)
    assert found is not None
    assert found > GIB / 4
