"""Shared devices: a machine's devices and their memory, shared by the runs under way on them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from importlib import import_module

from harness.errors import UserError
from harness.runs.stop import Stop
from harness.spec.plan import Plan

WAIT_SECONDS = 0.5
Predict = Callable[[Plan], int | None]


class SharedDevices:
    """Lets runs in while their predicted peaks together fit; one alone always does.

    A run that does not fit alone is let in too: it may need less than predicted, and if it does
    not, that is a result. One whose memory cannot be predicted gets a device to itself. With
    ``gpus`` each run gets one of them, or as many as share it, those first on which the fewest
    runs are under way.
    """

    def __init__(
        self, predict: Predict | None = None, gpus: Sequence[str] = (), *, alone: bool = False
    ) -> None:
        """``predict`` gives the bytes that a plan needs of its device, None where unknown.

        ``gpus`` are named as ``CUDA_VISIBLE_DEVICES`` names them; without any there is one device.
        Runs that are each ``alone`` on theirs need no prediction.
        """
        self._predict = predict or predicted_bytes
        self._known: dict[str, int | None] = {}
        self._taken: dict[str, list[int]] = {name: [] for name in gpus or ("",)}
        self._alone = alone
        self._free = threading.Condition()

    @contextmanager
    def beside(self, plan: Plan, stop: Stop) -> Iterator[str]:
        """Wait until there is room for ``plan``, and hold it; the GPUs that it gets, by name.

        Raises:
            UserError: neither what it needs nor what there is is known, or it needs more GPUs than
                there are.
            CancelledError: ``stop`` was asked for meanwhile.
        """
        needed = 0 if self._alone else self._needed(plan)
        with self._holding(plan, needed, stop) as names:
            yield names

    @contextmanager
    def beside_together(self, plans: Sequence[Plan], stop: Stop) -> Iterator[str]:
        """The same for plans that train as one, which need less than they would side by side."""
        needed = 0 if self._alone else sum(self._needed(plan) for plan in plans)
        with self._holding(plans[0], needed, stop) as names:
            yield names

    def needs_whole_device(self, plan: Plan) -> bool:
        """Whether ``plan`` gets a device to itself, since its memory cannot be predicted.

        Where the device's own memory is unknown too, it gets none: `beside` refuses it.
        """
        known = self._alone or plan.device.memory_bytes is None
        return not known and self._known_need(plan) is None

    @contextmanager
    def _holding(self, plan: Plan, needed: int, stop: Stop) -> Iterator[str]:
        count = self._count(plan)
        with self._free:
            while len(places := self._places(plan, needed)[:count]) < count:
                if stop.asked:
                    raise CancelledError
                self._free.wait(WAIT_SECONDS)
            for place in places:
                self._taken[place].append(needed)
        try:
            yield ",".join(places)
        finally:
            with self._free:
                for place in places:
                    self._taken[place].remove(needed)
                self._free.notify_all()

    def _count(self, plan: Plan) -> int:
        """How many of the named devices the plan gets."""
        if "" in self._taken:
            return 1
        if plan.training.devices > len(self._taken):
            raise UserError(
                f"{plan.variant} is divided over {plan.training.devices} devices",
                where="--gpus",
                expected=f"at most the {len(self._taken)} that are named there",
            )
        return plan.training.devices

    def _places(self, plan: Plan, needed: int) -> list[str]:
        """Devices with room for the plan, the emptiest first."""
        memory = plan.device.memory_bytes
        found = [
            place
            for place, taken in self._taken.items()
            if not taken or (not self._alone and (memory is None or sum(taken) + needed <= memory))
        ]
        return sorted(found, key=lambda place: len(self._taken[place]))

    def _needed(self, plan: Plan) -> int:
        needed = self._known_need(plan)
        if needed is None:
            needed = plan.device.memory_bytes  # all of it: nothing else runs beside it
        if needed is None:
            raise UserError(
                f"the memory of {plan.variant} on {plan.model.name} cannot be predicted",
                where="--jobs",
                expected="a prediction, so that runs at once do not take each other's memory",
                hint="leave --jobs out: one run at a time needs none",
            )
        return needed

    def _known_need(self, plan: Plan) -> int | None:
        with self._free:  # a prediction takes a moment, and most plans of a batch are alike
            key = _sizes(plan)
            if key not in self._known:
                self._known[key] = self._predict(plan)
            return self._known[key]


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
