"""Drive: run what a study wants, look again, and go on until nothing is left to be run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass

from harness.errors import (
    BudgetUsedUp,
    HarnessError,
    RunInUse,
    UserError,
    machine_troubles,
    user_mistakes,
)
from harness.records.record import Problem
from harness.runs.batch import run_batch
from harness.runs.ending import OUT_OF_TIME
from harness.runs.executor import Executor, ForeseeingExecutor
from harness.runs.kept import left_in
from harness.runs.listener import Listener, RunResult
from harness.runs.lock import holder_of, is_held
from harness.studies.account import Account
from harness.studies.agenda import Agenda, check_primary
from harness.studies.budget import said_hours
from harness.studies.findings import Findings, Job, is_killed
from harness.studies.round import Round
from harness.studies.steering import Decision, read_steering

MOST_TRIES = 3
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Shard:
    """Part ``number`` (from 1) of ``count`` parts of a study's runs."""

    number: int = 1
    count: int = 1

    def holds(self, job: Job) -> bool:
        """Whether the run belongs to this part; every driver agrees on that."""
        return int(job.fingerprint[:8], 16) % self.count == self.number - 1


WHOLE = Shard()


class Driver:
    """Runs a study's jobs, each as soon as what it depends on is known.

    A round goes on for as long as runs follow from those that end. A decision or a budget that may
    be used up ends it, and so do runs that train together: what is planned at once shares a base.

    All it knows is on disk, so another can take over; that one counts tries from the start.
    """

    def __init__(
        self,
        plan_next: Callable[[], Agenda],
        findings: Findings,
        executor: Executor,
        listeners: Callable[[Agenda], Sequence[Listener]],
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Ask ``plan_next`` before every round, and have ``listeners`` made for it.

        ``tell`` gets the few sentences between rounds.
        """
        self._plan_next = plan_next
        self._findings = findings
        self._executor = executor
        self._listeners = listeners
        self._tell = tell
        self._told = ""
        self._tries: Counter[str] = Counter()
        self._left: dict[str, dict[str, int]] = {}
        self._troubles = 0
        self._shard, self._together = WHOLE, 1
        self._read: tuple[tuple[int, int] | None, tuple[Decision, ...]] | None = None

    def drive(self, shard: Shard = WHOLE, together: int = 1) -> Agenda:
        """Run until nothing of ``shard`` is left; returns how the study then stands.

        ``together`` is that of `harness.runs.batch.run_batch`.

        Raises:
            HarnessError: a plan that cannot be run at all, or a mistake that would end every run.
            KeyboardInterrupt: after the runs under way have written their records.
        """
        self._shard, self._together = shard, together
        while True:
            agenda = self._plan_next()
            jobs = [job for job in agenda.jobs if shard.holds(job)]
            if not jobs:
                return agenda
            free = self._free(jobs)
            if not free:
                self._tell_who_holds(jobs)
            try:
                if not free or not self._run(agenda, free):  # all are under way elsewhere
                    time.sleep(POLL_SECONDS)
            except BudgetUsedUp as error:
                self._tell(f"{error.what}: with more of it, runs go on from where they were")
                return self._plan_next()

    def _free(self, jobs: Sequence[Job]) -> list[Job]:
        return [job for job in jobs if not is_held(self._findings.folder(job))]

    def _tell_who_holds(self, jobs: Sequence[Job]) -> None:
        """Say which processes this one waits for, once as long as they are the same."""
        holders = {holder_of(self._findings.folder(job)) for job in jobs}
        text = f"waiting for the runs of {', '.join(sorted(holders))}"
        if text != self._told:
            self._tell(text)
            self._told = text

    def _run(self, agenda: Agenda, jobs: Sequence[Job]) -> int:
        """Run one round; returns how many runs were carried out here.

        A decision that somebody takes meanwhile ends it early, and so does a run after which the
        others no longer fit into the budget: the next round follows that. Where the budget has
        room for all that may come, what follows from its runs belongs to the same round.

        Raises:
            BudgetUsedUp: after the runs under way have ended and written their records.
        """
        budget = agenda.comparison.study.budget
        if budget.hours is not None and not agenda.settled:
            self._foresee(jobs[1:2])
            jobs = jobs[:1]  # by which the others are judged to fit, before they are begun
        decided, ran = self._decisions(), 0
        account = Account(agenda, jobs, self._findings, self._together)
        listeners = [account, *self._listeners(agenda)]

        def is_over() -> bool:
            if account.is_used_up:
                raise BudgetUsedUp(f"the study's budget of {said_hours(budget)} is used up")
            return account.is_outgrown or self._decisions() != decided

        follow = self._follow if agenda.has_room and self._together == 1 else None
        made = Round(jobs, account, is_over, follow)
        plans = [job.plan for job in jobs]
        batch = run_batch(plans, self._executor, listeners, self._together, made)
        with closing(batch) as results:
            for result in results:
                try:
                    ran += self._take(made.end(result), result)
                    if result.record is not None:
                        check_primary(agenda.comparison.study, result.record)
                except BaseException as error:
                    results.throw(error)  # so that the runs beside it say why they were ended
                    raise
        return ran

    def _foresee(self, jobs: Sequence[Job]) -> None:
        if isinstance(self._executor, ForeseeingExecutor):
            for job in jobs:
                self._executor.foresee(job.plan)

    def _follow(self, given: Collection[Job]) -> list[Job]:
        """What can be started beside the runs that are ``given``."""
        try:
            agenda = self._plan_next()
        except HarnessError:
            return []  # it is raised again after the round, when no run is under way
        if not agenda.has_room:
            return []
        return self._free([j for j in agenda.jobs if self._shard.holds(j) and j not in given])

    def _decisions(self) -> tuple[Decision, ...]:
        """Those that persons have taken; asked at every event, so a known log is not read again."""
        log = self._findings.log
        state = (log.stat().st_mtime_ns, log.stat().st_size) if log.is_file() else None
        if self._read is None or self._read[0] != state:
            found = read_steering(log).decisions
            self._read = state, tuple(one for one in found if one.kind != "give_up")
        return self._read[1]

    def _take(self, job: Job, result: RunResult) -> bool:
        """Look at a result; whether the run was carried out here.

        A run that was stopped from outside is tried again, but not for ever, unless it was asked
        to stop: a cluster may preempt a long run many times, and each time it has come further.
        """
        if isinstance(result.error, RunInUse):
            return False
        if result.error is not None:
            raise result.error
        problem = result.record.problem if result.record is not None else None
        if problem is not None and problem.kind in user_mistakes():
            raise UserError(f"{job.arm}, seed {job.plan.seed}: {problem.message}")
        if problem is not None and problem.kind in machine_troubles():
            self._bear(problem)
            return True
        self._troubles = 0
        if result.record is not None and is_killed(result.record):
            self._tries[job.key] += 1
            if self._tries[job.key] >= MOST_TRIES:
                self._give_up(job, f"was stopped {MOST_TRIES} times")
        if problem is not None and problem.kind == OUT_OF_TIME.kind and self._is_stuck(job):
            self._give_up(
                job,
                "reached its time limit twice and came no further the second time than the first: "
                f"{problem.message}; jobs with more time, such as of another --partition, may do",
            )
        return True

    def _is_stuck(self, job: Job) -> bool:
        """Whether a run that has no time left has left no more than the time before."""
        before, now = self._left.get(job.key), left_in(self._findings.folder(job).attempt)
        self._left[job.key] = now
        return before == now

    def _give_up(self, job: Job, why: str) -> None:
        self._findings.give_up(job)
        self._tell(
            f"{job.key} {why}. It counts as failed; to have it tried again, remove its line from "
            f"{self._findings.log}"
        )

    def _bear(self, problem: Problem) -> None:
        """Go on after a network or a disk failed a run, which is tried again, but not for ever.

        Raises:
            UserError: several runs after each other ended so.
        """
        self._troubles += 1
        if self._troubles >= MOST_TRIES:
            raise UserError(
                f"{MOST_TRIES} runs after each other failed for the same kind of reason: "
                f"{problem.message}",
                hint="when it is mended, type the command again: these runs are tried again",
            )
