"""Round: the runs that a study has handed out, and those that follow while others are under way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence

from harness.errors import machine_troubles
from harness.runs.batch import Demand
from harness.runs.listener import RunResult
from harness.spec.plan import Plan
from harness.studies.account import Account
from harness.studies.findings import Job

Follow = Callable[[Collection[Job]], Sequence[Job]]


class Round(Demand):
    """Runs handed to an executor, until nothing follows from them or ``is_over`` says so.

    What a variant's runs at one stage allow does not wait for other variants: the study is asked
    again when the last of them has ended. A run whose network failed, or that another process
    carries out, is left to the next round; one that was stopped from outside is not.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        account: Account,
        is_over: Callable[[], bool],
        follow: Follow | None,
    ) -> None:
        """Begin with ``jobs``; ``follow`` finds those that can be started beside the ones given.

        Without it nothing follows: the round ends with its runs.
        """
        self._account = account
        self._is_over = is_over
        self._follow = follow
        self._of_plan: dict[int, Job] = {}  # results bring the very objects back
        self._given: set[Job] = set()
        self._left: Counter[tuple[str, ...]] = Counter()
        self._is_due = False
        self._add(jobs)

    def _add(self, jobs: Sequence[Job]) -> None:
        self._of_plan |= {id(job.plan): job for job in jobs}
        self._given |= set(jobs)
        self._left.update(map(_stage, jobs))

    def end(self, result: RunResult) -> Job:
        """Take in that a run has ended; returns what it was for."""
        job = self._of_plan[id(result.plan)]
        self._left[_stage(job)] -= 1
        self._is_due |= not self._left[_stage(job)]
        problem = None if result.record is None else result.record.problem
        if result.error is None and (problem is None or problem.kind not in machine_troubles()):
            self._given.discard(job)
        return job

    def enough(self) -> bool:
        """Whether a decision or the budget ends the round."""
        return self._is_over()

    def more(self) -> list[Plan]:
        """What follows by now, where a variant has come to the end of a stage."""
        if self._follow is None or not self._is_due:
            return []
        if not self._left.total():  # with none beside it, a round ends
            return []
        self._is_due = False
        jobs = self._follow(self._given)
        if self._is_over():  # decisions of other machines come when the study is looked at
            return []
        self._account.add(jobs)
        self._add(jobs)
        return [job.plan for job in jobs]


def _stage(job: Job) -> tuple[str, ...]:
    """Equal for runs on which the next ones of a variant wait together."""
    return (job.arm, job.stage) if job.stage == "tune" else (job.arm, job.stage, f"{job.rate!r}")
