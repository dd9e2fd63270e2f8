"""SlurmExecutor: plans as jobs of a SLURM cluster, by submitit; the store lies on shared disks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.errors import HarnessError, RunError, UserError
from harness.records.events import Hear, RunStarted
from harness.records.record import RunRecord
from harness.records.store import RunStore
from harness.runs.ending import Ending, interrupted
from harness.runs.lock import is_held
from harness.runs.options import DEFAULT_OPTIONS, RunOptions
from harness.runs.parcel import check_versions, versions
from harness.runs.remote import because, explain, supervise_remotely, was_interrupted
from harness.runs.slurm_reason import UNTOLD, end_of_job
from harness.runs.stop import Stop
from harness.runs.supervise import settle
from harness.spec.device import Device, DeviceChoice, detect_device
from harness.spec.plan import Plan

LARGEST_ARRAY = 1000  # SLURM's MaxArraySize is 1001 unless the cluster has raised it
POLL_SECONDS = 1.0
DECISION_SECONDS = 30.0  # how long SLURM may take to say how a job has ended
Waiting = tuple[Plan, Future[RunRecord]]


class SlurmExecutor:
    """Submits each plan as a job; plans that are submitted together become one job array.

    A job that is preempted leaves an interrupted run, which goes on when it is submitted again;
    one whose machine dies is queued again by SLURM.
    """

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
        self._jobs: dict[Any, Waiting] = {}
        self._ended: dict[Any, float] = {}
        self._preempted: dict[Any, float] = {}
        self._gathered: list[Waiting] | None = None
        self._lock = threading.Lock()
        self._watched = False
        self._stop = Stop()
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
        self._executor.update_parameters(gpus_per_node=int(kind == "cuda"))
        with _explained():
            job = self._executor.submit(_look, kind)
        return Device.model_validate_json(job.result())

    def submit(self, plan: Plan, hear: Hear) -> Future[RunRecord]:
        """Submit ``plan`` as a job, or as part of an array within :meth:`gathering`."""
        future: Future[RunRecord] = Future()
        future.set_running_or_notify_cancel()
        hear(RunStarted.now(host="a SLURM cluster"))
        if self._gathered is None:
            self._send([(plan, future)])
        else:
            self._gathered.append((plan, future))
        return future

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Gather what is submitted meanwhile into one job array for each number of GPUs."""
        gathered = self._gathered = []
        try:
            yield
        except BaseException:
            for _, future in gathered:
                future.set_exception(CancelledError())
            raise
        finally:
            self._gathered = None
        by_gpus: dict[int, list[Waiting]] = {}
        for plan, future in gathered:
            by_gpus.setdefault(_gpus(plan), []).append((plan, future))
        for waiting in by_gpus.values():
            for start in range(0, len(waiting), LARGEST_ARRAY):
                self._send(waiting[start : start + LARGEST_ARRAY])

    def _send(self, waiting: Sequence[Waiting]) -> None:
        """Submit plans that need equally many GPUs, several as an array."""
        plans = [plan for plan, _ in waiting]
        self._executor.update_parameters(gpus_per_node=_gpus(plans[0]))
        options, root, wanted = self._options.model_dump_json(), str(self._store.root), versions()
        calls = [(plan.model_dump_json(), options, root, wanted) for plan in plans]
        try:
            with _explained():
                jobs = self._executor.map_array(_carry_out, *zip(*calls, strict=True))
        except UserError as error:
            for _, future in waiting:
                future.set_exception(error)
            return
        with self._lock:
            self._jobs |= dict(zip(jobs, waiting, strict=True))
            if not self._watched:
                self._watched = True
                threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """Settle jobs as they finish, until there is none."""
        while True:
            with self._lock:
                if not self._jobs:
                    self._watched = False
                    return
            for place, job in enumerate(list(self._jobs)):
                # submitit asks SLURM once a minute, for all jobs: too seldom for who wants to stop
                self._try_to_end(job, ask=self._stop.asked and place == 0)
            time.sleep(POLL_SECONDS)

    def _try_to_end(self, job: Any, *, ask: bool) -> None:
        """Look at a job. What goes wrong there ends it alone, not the thread that watches all."""
        try:
            self._look_at(job, ask=ask)
        except Exception as error:  # noqa: BLE001 - handed on to whoever waits
            _, future = self._jobs.pop(job)
            known = isinstance(error, HarnessError)
            future.set_exception(error if known else RunError(_failed(error)))

    def _look_at(self, job: Any, *, ask: bool) -> None:
        try:
            if not job.done(force_check=ask) and not self._stays_preempted(job):
                return
            error = self._error_of(job)
            found: Any = job.result() if error is None else None
        except Exception as caught:  # noqa: BLE001 - handed on to whoever waits
            error, found = caught, None
        plan, future = self._jobs[job]
        if error is not None and is_held(self._store.folder(plan)):
            return  # a process of the job still lives
        if isinstance(found, HarnessError):
            future.set_exception(found)
        elif not self._settle(job, error, found):
            return
        del self._jobs[job]

    def _stays_preempted(self, job: Any) -> bool:
        """Whether SLURM has not queued a preempted job again, for which submitit would wait."""
        if str(job.state) != "PREEMPTED":
            self._preempted.pop(job, None)
            return False
        since = self._preempted.setdefault(job, time.monotonic())
        return time.monotonic() - since > DECISION_SECONDS

    def _error_of(self, job: Any) -> BaseException | None:
        """How a job that has ended failed. submitit waits 15 s for what a cancelled one left.

        For a preempted one it waits until it is queued again.
        """
        if (self._stop.asked or job in self._preempted) and not job.paths.result_pickle.exists():
            return CancelledError()
        found: BaseException | None = job.exception()
        return found

    def _settle(self, job: Any, error: BaseException | None, found: str | None) -> bool:
        """Give a plan the record that its job has answered with or left behind.

        Returns:
            False where it is too early to say who has ended the run.
        """
        plan, future = self._jobs[job]
        record = None if found is None else RunRecord.model_validate_json(found)
        end = UNTOLD
        if record is None or was_interrupted(record):
            told = self._end(job, error)
            if told is None:
                return False
            end = told
            if end is not UNTOLD:
                ran = plan if record is None else record.plan  # a smaller one, maybe
                left = explain(self._store, ran, self._options.name, end)
                record = left if record is None else because(record, end)
        if record is not None:
            future.set_result(record)
        else:
            self._take_what_is_left(plan, future, end.message or _failed(error))
        return True

    def _take_what_is_left(self, plan: Plan, future: Future[RunRecord], why: str) -> None:
        """A job ended without an answer: what it has left behind says how its run ended."""
        if self._stop.asked:
            future.set_exception(CancelledError())
            return
        settle(self._store, plan.suite)
        record = self._store.find(plan)
        if record is not None:
            future.set_result(record)
        else:
            future.set_exception(RunError(why))

    def _end(self, job: Any, error: BaseException | None) -> Ending | None:
        """How a run was ended; ``UNTOLD`` where nobody knows, None where SLURM decides yet."""
        if self._stop.asked:
            return interrupted(self._stop.reason)
        if self._executor.cluster != "slurm":
            return UNTOLD
        self._ended.setdefault(job, time.monotonic())
        late = time.monotonic() - self._ended[job] > DECISION_SECONDS
        end = end_of_job(job.job_id, str(error), lambda: str(job.state))
        return UNTOLD if end is None and late else end

    def cancel(self) -> None:
        """Cancel all jobs; those under way are interrupted."""
        self.cancel_because("")

    def cancel_because(self, reason: str) -> None:
        """The same, with the reason that records give."""
        self._stop.ask(reason)
        for job in list(self._jobs):
            job.cancel()


def _failed(error: BaseException | None) -> str:
    return f"the job failed: {type(error).__name__}: {error}"


@contextmanager
def _explained() -> Iterator[None]:
    """What sbatch says against a job, as an error of the user's.

    Raises:
        UserError: the job was not accepted.
    """
    from submitit.core.utils import FailedJobError

    try:
        yield
    except FailedJobError as error:
        lines = str(error).strip().splitlines() or ["no reason given"]
        raise UserError(
            f"SLURM takes no job: {lines[-1]}",
            where="--executor slurm",
            hint="sinfo lists partitions; --partition NAME chooses one",
        ) from None


def _gpus(plan: Plan) -> int:
    return plan.training.devices if plan.device.kind == "cuda" else 0


def _look(kind: DeviceChoice) -> str:
    return detect_device(kind).model_dump_json()


def _carry_out(plan: str, options: str, root: str, wanted: dict[str, str]) -> str | HarnessError:
    """What a job does, on whichever machine: the record lies in the store when it returns.

    Returns:
        The record as JSON, or the error that says why the plan cannot be run at all: of its own
        class, which says whether the user can mend it and whether another process runs the plan.
    """
    asked, store = Plan.model_validate_json(plan), RunStore(Path(root))
    try:
        check_versions(wanted)
        record = supervise_remotely(asked, store, RunOptions.model_validate_json(options))
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
