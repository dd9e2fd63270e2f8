"""Forks: which runs of an executor are forked, and when the process they are forked from begins."""

from __future__ import annotations

from threading import Lock

from harness.records.store import RunStore
from harness.runs.options import RunOptions
from harness.runs.supervise import makes_running_unnecessary
from harness.runs.warm_start import warm_start
from harness.spec.plan import Plan


class Forks:
    """Decides for every run whether it is forked from a process that has loaded the libraries.

    The first is not: it may be the only one, and would wait. If others are to follow it, that
    process loads the libraries meanwhile. Runs that begin at once with the first wait for it.
    """

    def __init__(self, store: RunStore, options: RunOptions, *, at_once: bool) -> None:
        """Count what ``store`` does not hold yet; ``at_once`` says that runs go on side by side.

        Runs on GPUs only are forked (:attr:`on`): a fork has no page of a library's file until it
        touches it, so its resident memory, which is what a CPU's runs are compared by, would read
        lower than that of a fresh process. Nor is a fresh process begun beside a run on a CPU,
        whose threads have every core: its phases are timed, and what the next run would gain they
        would lose.
        """
        self._store = store
        self._options = options
        self._at_once = at_once
        self.on: tuple[str, ...] = ("cuda",)
        self._expected: set[str] = set()
        self._has_begun = False
        self._lock = Lock()

    def expect(self, plan: Plan) -> None:
        """Take in that ``plan`` is to be run."""
        could = self._options.warm and plan.device.kind in self.on and plan.training.devices == 1
        if could and self._has_to_be_run(plan):
            self._expected.add(plan.fingerprint)

    def _has_to_be_run(self, plan: Plan) -> bool:
        known = self._store.find(plan)
        return known is None or not makes_running_unnecessary(known, self._options)

    def take(self, plan: Plan) -> bool:
        """Whether the run of ``plan``, which begins now, is forked."""
        with self._lock:
            if plan.fingerprint not in self._expected:
                return False
            self._expected.remove(plan.fingerprint)
            first, self._has_begun = not self._has_begun, True
        if first and self._expected and not self._at_once:
            warm_start().begin()
        return not first
