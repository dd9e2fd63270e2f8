"""RayExecutor: plans as tasks of a Ray cluster, one that runs already or one of this machine."""

from __future__ import annotations

import os
import socket
import threading
from concurrent.futures import CancelledError, Future
from types import ModuleType
from typing import Any

from harness.errors import HarnessError, RunError, UserError
from harness.records.events import Hear, RunStarted
from harness.records.record import RunRecord
from harness.records.store import RunStore
from harness.runs.options import DEFAULT_OPTIONS, RunOptions
from harness.runs.parcel import (
    Parcel,
    PlanFiles,
    environment_of_sender,
    pack_plan,
    pack_sources,
    run_parcel,
    source_key,
    take_back,
    threads_asked_for,
)
from harness.runs.stop import Stop
from harness.spec.device import Device, DeviceChoice, detect_device
from harness.spec.plan import Plan

ANSWER_SECONDS = 10.0
NICENESS = "RAY_worker_niceness"  # of the tasks of a cluster that this process starts
NODE_FAILURES = 5  # how often a run is begun again elsewhere because its machine died


class RayExecutor:
    """Sends plans to a Ray cluster and brings run folders back; no common file system is needed."""

    def __init__(
        self, store: RunStore, options: RunOptions = DEFAULT_OPTIONS, address: str = ""
    ) -> None:
        """Join the cluster at ``address`` ("auto": the one of this machine; "": start one).

        Raises:
            UserError: Ray is not installed, or no cluster answers there.
        """
        self._ray = _ray()
        self._store = store
        self._options = options
        self._tasks: dict[Any, Future[RunRecord]] = {}
        self._sources: dict[tuple[str | None, ...], Any] = {}
        self._stop = Stop()
        if not self._ray.is_initialized():
            try:
                _check_answers(address)
                if not address:
                    # Ray's own is 15: beside other work, runs would be slower than without Ray.
                    os.environ.setdefault(NICENESS, "0")
                self._ray.init(address=address or "local", log_to_driver=False)
            except OSError as error:  # of which ConnectionError is one
                raise UserError(
                    f"no Ray cluster answers: {error}",
                    where=f"--address {address}",
                    hint="start one with `ray start --head`, or leave --address out",
                ) from None
        self._work = self._ray.remote(max_retries=NODE_FAILURES, retry_exceptions=False)(_carry_out)

    def device(self, kind: DeviceChoice) -> Device:
        """The device that a machine of the cluster has; a run asks for all of it."""
        needs = {"num_gpus": 1} if kind == "cuda" or self._gpus() else {"num_cpus": 1}
        look = self._ray.remote(**needs)(_look)
        found: Device = Device.model_validate_json(
            self._ray.get(look.remote(kind, threads_asked_for()))
        )
        return found

    def _gpus(self) -> bool:
        return bool(self._ray.cluster_resources().get("GPU", 0) > 0)

    def submit(self, plan: Plan, hear: Hear) -> Future[RunRecord]:
        """Send ``plan``; Ray holds it until a machine has room."""
        future: Future[RunRecord] = Future()
        future.set_running_or_notify_cancel()
        key = source_key(plan)
        if key not in self._sources:
            self._sources[key] = self._ray.put(pack_sources(plan))
        parcel = pack_plan(plan, self._options, self._store)
        task = self._work.options(**self._needs(plan)).remote(parcel, self._sources[key])
        self._tasks[task] = future
        hear(RunStarted.now(host="a Ray cluster"))
        arrived = task.future()
        arrived.add_done_callback(lambda done: self._arrive(task, plan, done))
        return future

    def _needs(self, plan: Plan) -> dict[str, float]:
        """Resources of a run: its GPUs, or the cores that it computes on."""
        if plan.device.kind == "cuda":
            count = plan.training.devices
            return {"num_gpus": count, "num_cpus": count}
        most = max((node["Resources"].get("CPU", 0) for node in self._nodes()), default=1)
        return {"num_cpus": max(1, min(plan.device.threads or 1, int(most)))}

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _arrive(self, task: Any, plan: Plan, done: Future[Any]) -> None:
        """A folder has come back, or the reason why none does. Called by a thread of Ray's."""
        future = self._tasks.pop(task)
        threading.Thread(
            target=_settle, args=(future, done, plan, self._store, self._stop), daemon=True
        ).start()

    def cancel(self) -> None:
        """Stop all tasks; those under way are interrupted, and their folders come back."""
        self.cancel_because("")

    def cancel_because(self, reason: str) -> None:
        """The same, with the reason that records give."""
        self._stop.ask(reason)
        for task in list(self._tasks):
            self._ray.cancel(task, force=False)


def _settle(
    future: Future[RunRecord], done: Future[Any], plan: Plan, store: RunStore, stop: Stop
) -> None:
    try:
        future.set_result(take_back(done.result(), plan, store, stop=stop))
    except Exception as error:  # noqa: BLE001 - handed on to whoever waits
        future.set_exception(_understood(error))


def _understood(error: BaseException) -> BaseException:
    """What Ray raised, as the harness says it."""
    cause = getattr(error, "cause", None)
    if isinstance(error, HarnessError):
        return error
    if isinstance(cause, HarnessError):
        return cause
    name = type(error).__name__
    if "Cancelled" in name or isinstance(cause, KeyboardInterrupt):
        return CancelledError()
    first = str(error).strip().splitlines()[0] if str(error).strip() else name
    return RunError(f"the Ray task failed: {name}: {first}")


def _carry_out(parcel: Parcel, sources: PlanFiles) -> bytes:
    return run_parcel(parcel, sources)


def _look(kind: DeviceChoice, environment: dict[str, str]) -> str:
    with environment_of_sender(environment):
        return detect_device(kind).model_dump_json()


def _check_answers(address: str) -> None:
    """Ray itself tries for minutes.

    Raises:
        OSError: nobody listens there.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()


def _ray() -> ModuleType:
    try:
        import ray
    except ImportError:
        raise UserError(
            "the executor ray needs the package ray", hint='pip install "finetune-harness[ray]"'
        ) from None
    found: ModuleType = ray
    return found
