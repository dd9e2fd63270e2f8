"""Room: the memory of a device, shared by the runs that are under way on it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from importlib import import_module

from harness.errors import UserError
from harness.runs.stop import Stop
from harness.spec.plan import Plan

WAIT_SECONDS = 0.5
Predict = Callable[[Plan], int | None]


class Room:
    """Lets runs in while their predicted peaks together fit; one alone always does.

    A run that does not fit alone is let in too: it may need less than predicted, and if it does
    not, that is a result.
    """

    def __init__(self, predict: Predict | None = None) -> None:
        """``predict`` gives the bytes that a plan needs of its device, None where unknown."""
        self._predict = predict or predicted_bytes
        self._known: dict[str, int | None] = {}
        self._taken: list[int] = []
        self._free = threading.Condition()

    @contextmanager
    def beside(self, plan: Plan, stop: Stop) -> Iterator[None]:
        """Wait until there is room for ``plan``, and hold it.

        Raises:
            UserError: what it needs cannot be predicted.
            CancelledError: ``stop`` was asked for meanwhile.
        """
        needed = self._needed(plan)
        with self._free:
            while not self._fits(plan, needed):
                if stop.asked:
                    raise CancelledError
                self._free.wait(WAIT_SECONDS)
            self._taken.append(needed)
        try:
            yield
        finally:
            with self._free:
                self._taken.remove(needed)
                self._free.notify_all()

    def _fits(self, plan: Plan, needed: int) -> bool:
        memory = plan.device.memory_bytes
        return not self._taken or memory is None or sum(self._taken) + needed <= memory

    def _needed(self, plan: Plan) -> int:
        with self._free:  # a prediction takes a second, and most plans of a batch are alike
            key = _sizes(plan)
            if key not in self._known:
                self._known[key] = self._predict(plan)
            needed = self._known[key]
        if needed is None:
            raise UserError(
                f"the memory of {plan.variant} on {plan.model.name} cannot be predicted",
                where="--jobs",
                expected="a prediction, so that runs at once do not take each other's memory",
                hint="leave --jobs out: one run at a time needs none",
            )
        return needed


def _sizes(plan: Plan) -> str:
    """Equal for plans that need the same memory: other seeds and learning rates do not matter."""
    training = plan.training.model_copy(update={"learning_rate": 1.0})
    update = {"seed": 0, "variant": "any", "suite": "any", "request": None, "training": training}
    return plan.model_copy(update=update).fingerprint


def predicted_bytes(plan: Plan) -> int | None:
    """Bytes that the plan needs of its device at its peak; None where that is not known."""
    memory = import_module("harness.forecast.memory")  # it loads torch, which few batches need
    prediction = memory.predict(plan)
    if prediction is None or not prediction.by_phase:
        return None
    needed: int = memory.room_needed(plan, prediction.peak_bytes)
    return needed
