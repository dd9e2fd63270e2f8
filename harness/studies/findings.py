"""Findings: what the store knows of a study's jobs, each record read once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from harness.errors import HarnessError, machine_troubles, user_mistakes
from harness.records.record import Environment, RunRecord
from harness.records.store import RunFolder, RunStore, StoredRun
from harness.runs.ending import ABANDONED, CANCELLED
from harness.spec.plan import Plan
from harness.spec.storage import read_json
from harness.studies.steering import decide, read_steering

Stage = Literal["tune", "verdict"]
# A run that was stopped from outside says nothing about its variant: it is run again. Nor does a
# mistake in the study's files, once it is mended.
STOPPED = ("killed", "timed_out", "disk_full")


@dataclass(frozen=True)
class Job:
    """One run that a study wants: what for, of which arm, at which learning rate.

    ``share`` is the part of the budget that it gets. Its plan is made when it is asked for: a
    study whose records are all there needs none.
    """

    stage: Stage
    arm: str
    rate: float
    share: float
    seed: int
    make: Callable[[], Plan] = field(compare=False, repr=False)

    @cached_property
    def plan(self) -> Plan:
        """What to run."""
        return self.make()

    @cached_property
    def fingerprint(self) -> str:
        """Of the plan, reckoned once: a study may ask ten thousand jobs for it again and again."""
        return self.plan.fingerprint

    @cached_property
    def key(self) -> str:
        """Folder of the run below the store, unique to what the run does."""
        return self.plan.run_name_with(self.fingerprint)


class Findings:
    """Records of jobs. Whatever a study knows and concludes is made from these."""

    def __init__(self, store: RunStore, log: Path) -> None:
        """Look into ``store``, and into the study's ``log`` of decisions for runs given up."""
        self.store = store
        self.log = log
        self._known: dict[Job, StoredRun] = {}
        self._environments: dict[str, Environment] = {}  # one for all runs that share it

    def folder(self, job: Job) -> RunFolder:
        """Where the job's run belongs."""
        return RunFolder(self.store.root / job.key)

    def find(self, job: Job) -> StoredRun | None:
        """The job's settled run; None where it has yet to be run, or to be run again."""
        known = self._known.get(job)
        if known is None:
            known = self._read(job)
            if known is not None:
                self._known[job] = known
        return known

    def begun(self, job: Job) -> float:
        """Seconds that were spent on a job which is yet to go on; 0 where it was never begun."""
        record = self._record(job)
        return 0.0 if record is None else record.all_seconds

    def give_up(self, job: Job) -> None:
        """Take the job's failure as settled, here and wherever the study is looked at again.

        Raises:
            StorageError: the log cannot be written.
        """
        if not self._is_given_up(job):
            decide(self.log, ("give_up", job.key))

    def _is_given_up(self, job: Job) -> bool:
        return job.key in read_steering(self.log).given_up

    def _read(self, job: Job) -> StoredRun | None:
        record = self._record(job)
        if record is None or not (is_settled(record) or self._is_given_up(job)):
            return None
        return StoredRun(self.folder(job), self._slim(record, job.plan))

    def _record(self, job: Job) -> RunRecord | None:
        """What was written of a job; None where that is nothing, or cannot be read."""
        path = self.folder(job).record
        if not path.is_file():
            return None
        try:
            record = read_json(path, RunRecord)
        except HarnessError:
            return None
        return record if record.fingerprint == job.fingerprint else None

    def _slim(self, record: RunRecord, plan: Plan) -> RunRecord:
        """The record without what no conclusion needs: a study may have ten thousand."""
        training, environment = record.training, record.environment
        if training is not None:
            training = training.model_copy(update={"losses": ()})
        if environment is not None:
            environment = self._environments.setdefault(environment.model_dump_json(), environment)
        kept = {"plan": plan, "training": training, "environment": environment}
        return record.model_copy(update={"generations": (), "corpus": None, "census": None, **kept})


def is_killed(record: RunRecord) -> bool:
    """Whether the run was ended from outside, but for a stop that this study asked for.

    Nor does a preemption count: a cluster may preempt a long run many times.
    """
    problem = record.problem
    by_others = problem is not None and problem.kind in (ABANDONED.kind, CANCELLED.kind)
    asked = record.status == "interrupted" and not by_others
    return not asked and not is_settled(record)


def is_settled(record: RunRecord) -> bool:
    """Whether the record says something about its variant, also that it failed."""
    if record.status == "interrupted":
        return False
    if record.problem is None:
        return True
    return record.problem.kind not in (*STOPPED, *user_mistakes(), *machine_troubles())
