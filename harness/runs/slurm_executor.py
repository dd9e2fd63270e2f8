"""SlurmExecutor: plans as jobs of a SLURM cluster, by submitit; the store lies on shared disks."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.errors import HarnessError, RunError, UserError
from harness.records.events import Hear, RunStarted
from harness.records.record import RunRecord
from harness.records.store import RunStore
from harness.runs.options import DEFAULT_OPTIONS, RunOptions
from harness.runs.parcel import check_versions, versions
from harness.runs.supervise import supervise
from harness.spec.device import Device, DeviceChoice, detect_device
from harness.spec.plan import Plan


class SlurmExecutor:
    """Submits each plan as a job of its own; a job that is preempted is queued again by SLURM."""

    def __init__(
        self,
        store: RunStore,
        options: RunOptions = DEFAULT_OPTIONS,
        partition: str = "",
        cluster: str = "",
    ) -> None:
        """Submit to ``partition``.

        ``cluster`` is submitit's: "slurm", or "local" and "debug" for jobs on this machine.

        Raises:
            UserError: submitit is not installed, or there is no SLURM here.
        """
        self._store = store
        self._options = options
        self._jobs: dict[Any, Future[RunRecord]] = {}
        submitit = _submitit()
        folder = store.root.parent / "slurm"
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster or "slurm")
        except RuntimeError as error:
            raise UserError(
                f"jobs cannot be submitted here: {error}",
                where="--executor slurm",
                hint="run this on a machine that has sbatch",
            ) from None
        minutes = (
            None if options.timeout_seconds is None else int(options.timeout_seconds / 60) + 10
        )
        self._executor.update_parameters(timeout_min=minutes or 24 * 60, name="harness")
        if partition:
            self._executor.update_parameters(slurm_partition=partition)

    def device(self, kind: DeviceChoice) -> Device:
        """The device of a job, found out by one."""
        job = self._submit_job(int(kind == "cuda"), _look, kind)
        return Device.model_validate_json(job.result())

    def submit(self, plan: Plan, hear: Hear) -> Future[RunRecord]:
        """Submit ``plan`` as a job."""
        future: Future[RunRecord] = Future()
        future.set_running_or_notify_cancel()
        given = (plan.model_dump_json(), self._options.model_dump_json(), str(self._store.root))
        gpus = plan.training.devices if plan.device.kind == "cuda" else 0
        job = self._submit_job(gpus, _carry_out, *given, versions())
        self._jobs[job] = future
        hear(RunStarted.now(host="a SLURM cluster"))
        threading.Thread(target=self._wait, args=(job, future), daemon=True).start()
        return future

    def _submit_job(self, gpus: int, *call: Any) -> Any:
        self._executor.update_parameters(gpus_per_node=gpus)
        return self._executor.submit(*call)

    def _wait(self, job: Any, future: Future[RunRecord]) -> None:
        job.wait()
        error = job.exception()
        self._jobs.pop(job, None)
        if error is not None:
            future.set_exception(_understood(error))
            return
        found = job.result()
        if isinstance(found, HarnessError):
            future.set_exception(found)
        else:
            future.set_result(RunRecord.model_validate_json(found))

    def cancel(self) -> None:
        """Cancel all jobs; those under way are interrupted."""
        for job in list(self._jobs):
            job.cancel()


def _understood(error: BaseException) -> BaseException:
    if "cancel" in str(error).lower():
        return CancelledError()
    return RunError(f"the job failed: {type(error).__name__}: {error}")


def _look(kind: DeviceChoice) -> str:
    return detect_device(kind).model_dump_json()


def _carry_out(plan: str, options: str, root: str, wanted: dict[str, str]) -> str | HarnessError:
    """What a job does, on whichever machine: the record lies in the store when it returns.

    Returns:
        The record as JSON, or the error that says why the plan cannot be run at all: of its own
        class, which says whether the user can mend it and whether another process runs the plan.
    """
    try:
        check_versions(wanted)
        record = supervise(
            Plan.model_validate_json(plan),
            RunStore(Path(root)),
            lambda _: None,
            RunOptions.model_validate_json(options),
        )
    except HarnessError as error:
        return error
    return record.model_dump_json()


def _submitit() -> ModuleType:
    try:
        import submitit
    except ImportError:
        raise UserError(
            "the executor slurm needs the package submitit",
            hint='pip install "finetune-harness[slurm]"',
        ) from None
    found: ModuleType = submitit
    return found
