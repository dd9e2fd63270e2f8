"""Executor: where plans run. One protocol; each kind is found by its name."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from threading import Event
from typing import Protocol, runtime_checkable

from harness.records.events import Hear, RunStarted
from harness.records.record import RunRecord
from harness.records.store import RunStore
from harness.runs.forks import Forks
from harness.runs.options import DEFAULT_OPTIONS, RunOptions
from harness.runs.shared_devices import SharedDevices
from harness.runs.stop import Stop
from harness.runs.supervise import supervise
from harness.runs.supervise_together import HearOf, supervise_together
from harness.spec.device import Device, DeviceChoice, detect_device, usable_threads
from harness.spec.plan import Plan
from harness.spec.plugins import Plugins


class Executor(Protocol):
    """Takes plans and has them run somewhere; each becomes a record in the store.

    A plan is pure data, and with the options that the executor was made with it is all that a run
    needs, so both can be sent to another machine.
    """

    def device(self, kind: DeviceChoice) -> Device:
        """The device that a run gets here found out where it runs.

        Plans are made for it before they are submitted.
        """

    def submit(self, plan: Plan, hear: Hear) -> Future[RunRecord]:
        """Have ``plan`` run as soon as there is room; returns at once.

        ``hear`` gets the run's events, from any thread, first of all a ``RunStarted``; an
        executor that cannot pass on what happens far away leaves the others out. The future
        holds the record (also of a run that failed), or a HarnessError where the plan cannot be
        run at all, or is cancelled.
        """

    def cancel(self) -> None:
        """Begin no more runs and end those under way, which write their records first.

        Called again, it does not wait for the records. Nothing is submitted afterwards.
        """


@runtime_checkable
class GatheringExecutor(Protocol):
    """An executor that can also take many plans at once."""

    def gathering(self) -> AbstractContextManager[None]:
        """A context in which ``submit`` only gathers plans; none begins before its end."""


@runtime_checkable
class ForeseeingExecutor(Protocol):
    """An executor that makes ready for plans which are to come."""

    def foresee(self, plan: Plan) -> None:
        """Take in that ``plan`` may be submitted after those that are by now."""


@runtime_checkable
class TogetherExecutor(Protocol):
    """An executor that can also have several plans train as one."""

    def submit_together(self, plans: Sequence[Plan], hear: HearOf) -> list[Future[RunRecord]]:
        """Have plans that can train together do so; as `Executor.submit` for each of them."""


@runtime_checkable
class ExplainedExecutor(Protocol):
    """An executor whose runs can say why they were ended."""

    def cancel_because(self, reason: str) -> None:
        """As `Executor.cancel`; records of runs under way give ``reason``, if there is one."""


class LocalExecutor:
    """Runs plans on this machine, each in a process of its own, in ``slots`` at once.

    With ``gpus`` every run sees its own of them. Where there are more slots than devices, a run
    begins as soon as its predicted memory fits beside those under way; one whose memory cannot be
    predicted comes after all others that wait, and gets a device for itself alone. Slots share the
    CPU's threads evenly.
    """

    def __init__(
        self,
        store: RunStore,
        options: RunOptions = DEFAULT_OPTIONS,
        slots: int = 1,
        gpus: Sequence[str] = (),
    ) -> None:
        """Leave records in ``store``; ``options.warm`` has runs forked, as :attr:`forks` says."""
        self._store = store
        self.forks = Forks(store, options, at_once=slots > 1)
        shared = slots > max(len(gpus), 1)
        threads = max(1, usable_threads() // slots) if slots > 1 else None
        self._options = options.model_copy(update={"shared": shared, "threads": threads})
        self._stop = Stop()
        self._devices = SharedDevices(gpus=gpus, alone=not shared) if gpus or shared else None
        self._slots = ThreadPoolExecutor(slots, thread_name_prefix="slot")
        self._all_there = Event()
        self._all_there.set()

    def device(self, kind: DeviceChoice) -> Device:
        """The device of this machine."""
        return detect_device(kind)

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Begin nothing meanwhile: which run comes last is known once all have been asked for."""
        self._all_there.clear()
        try:
            yield
        finally:
            self._all_there.set()

    def foresee(self, plan: Plan) -> None:
        """Have the process that forks runs load its libraries before ``plan`` is submitted."""
        self.forks.expect(plan)

    def submit(self, plan: Plan, hear: Hear) -> Future[RunRecord]:
        """Run ``plan`` in the next free slot with enough memory.

        Raises:
            UserError: several shall run at once, and neither its memory nor the device's is known.
        """
        found: Future[RunRecord] = Future()
        self.forks.expect(plan)
        self._queue(found, plan, hear)
        return found

    def _queue(
        self, found: Future[RunRecord], plan: Plan, hear: Hear, *, last: bool = False
    ) -> None:
        turn = self._slots.submit(self._turn, found, plan, hear, last=last)
        turn.add_done_callback(partial(_hand_over, found=found))

    def _turn(
        self, found: Future[RunRecord], plan: Plan, hear: Hear, *, last: bool
    ) -> RunRecord | None:
        """The plan's record; None where its turn comes later, since nothing runs beside it."""
        self._all_there.wait()
        given_up = found.cancelled()  # needs no prediction, which takes a while
        if not (last or given_up) and self._has_to_wait_for_all(plan):
            try:
                self._queue(found, plan, hear, last=True)
            except RuntimeError as error:  # there are no turns any more
                raise CancelledError from error
            return None
        if not found.set_running_or_notify_cancel():
            raise CancelledError
        return self._run(plan, hear)

    def _has_to_wait_for_all(self, plan: Plan) -> bool:
        return self._devices is not None and self._devices.needs_whole_device(plan)

    def _run(self, plan: Plan, hear: Hear) -> RunRecord:
        with (
            nullcontext("")
            if self._devices is None
            else self._devices.beside(plan, self._stop) as gpus
        ):
            host = socket.gethostname()
            hear(RunStarted.now(host=f"{host}, GPU {gpus}" if gpus else host))
            options = self._options.model_copy(update={"gpus": gpus, "warm": self.forks.take(plan)})
            return supervise(plan, self._store, hear, options, self._stop)

    def submit_together(self, plans: Sequence[Plan], hear: HearOf) -> list[Future[RunRecord]]:
        """Run the plans as one in the next free slot with enough memory for all of them.

        Raises:
            UserError: as `submit`.
        """
        parts: list[Future[RunRecord]] = [Future() for _ in plans]
        whole = self._slots.submit(self._run_together, plans, hear, parts)
        whole.add_done_callback(partial(_hand_out, parts=parts))
        return parts

    def _run_together(
        self, plans: Sequence[Plan], hear: HearOf, parts: Sequence[Future[RunRecord]]
    ) -> list[RunRecord]:
        shared = self._devices
        beside = nullcontext("") if shared is None else shared.beside_together(plans, self._stop)
        with beside as gpus:
            begun = [part.set_running_or_notify_cancel() for part in parts]
            if not any(begun):
                raise CancelledError
            host = socket.gethostname()
            for plan in plans:
                hear(plan, RunStarted.now(host=f"{host}, GPU {gpus}" if gpus else host))
            options = self._options.model_copy(update={"gpus": gpus, "warm": False})
            return supervise_together(plans, self._store, hear, options, self._stop)

    def cancel(self) -> None:
        """Stop the children; plans that wait for a slot are not run."""
        self.cancel_because("")

    def cancel_because(self, reason: str) -> None:
        """The same, with the reason that records give."""
        self._stop.ask(reason)
        self._slots.shutdown(wait=False, cancel_futures=True)


def _hand_over(turn: Future[RunRecord | None], found: Future[RunRecord]) -> None:
    """Give what a turn has brought, unless another one comes."""
    if turn.cancelled():
        found.cancel()
    elif found.cancelled():
        return
    elif (error := turn.exception()) is not None:
        found.set_exception(error)
    elif (record := turn.result()) is not None:
        found.set_result(record)


def _hand_out(whole: Future[list[RunRecord]], parts: Sequence[Future[RunRecord]]) -> None:
    """Give each part its own of what the whole has found."""
    if whole.cancelled():
        for part in parts:
            part.cancel()
        return
    error = whole.exception()
    found = [None for _ in parts] if error is not None else whole.result()
    for part, record in zip(parts, found, strict=True):
        if part.cancelled():
            continue
        if record is None:
            part.set_exception(error)
        else:
            part.set_result(record)


EXECUTORS = Plugins(
    "executor",
    "finetune_harness.executors",
    {
        "local": "harness.runs.executor:LocalExecutor",
        "ray": "harness.runs.ray_executor:RayExecutor",
        "slurm": "harness.runs.slurm_executor:SlurmExecutor",
    },
)


def make_executor(
    name: str, store: RunStore, options: RunOptions = DEFAULT_OPTIONS, *where: object
) -> Executor:
    """The executor registered as ``name``.

    ``where`` is what the executor takes beside store and options: slots and GPUs of this machine,
    the address of a Ray cluster, a SLURM partition.

    Raises:
        UnknownName: there is none of that name.
        UserError: it cannot be used here.
    """
    kind: Callable[..., Executor] = EXECUTORS.load(name, "--executor")
    return kind(store, options, *where)
