"""Notices: the lines of a batch that stay on the terminal, such as what went wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.cli.app import complain, say
from harness.cli.run_view import title_of
from harness.records.events import Event, RunStarted
from harness.records.record import RunRecord
from harness.records.store import RunStore
from harness.runs.listener import Listener, RunResult
from harness.spec.plan import Plan, Substitution


class Notices(Listener):
    """Prints what was substituted in a plan, and how a run ended that did not end well."""

    def __init__(self, store: RunStore) -> None:
        """Name the logs of runs in ``store``."""
        self._store = store
        self._single = False

    def begin(self, plans: Sequence[Plan]) -> None:
        """One plan alone that cannot be run is the command's own error."""
        self._single = len(plans) == 1

    def hear(self, plan: Plan, event: Event) -> None:
        """Print what the plan has in place of what was asked for, when its run starts."""
        if isinstance(event, RunStarted):
            _print_substitutions(plan, plan.substitutions)

    def result(self, result: RunResult) -> None:
        """Print what else was substituted, and what went wrong."""
        plan, record = result.plan, result.record
        if record is None:
            if not self._single:
                complain(f"{title_of(plan)}: {result.error}")
            return
        more = [item for item in record.plan.substitutions if item not in plan.substitutions]
        _print_substitutions(plan, more)
        if record.problem is not None:
            self._print_problem(title_of(plan), record)

    def _print_problem(self, title: str, record: RunRecord) -> None:
        problem, folder = record.problem, self._store.folder(record.plan)
        assert problem is not None  # noqa: S101 - the caller has looked
        where = f" in phase {problem.phase}" if problem.phase else ""
        step = f", step {problem.step}" if problem.step else ""
        log = folder.attempt.log if folder.attempt.log.is_file() else folder.log
        complain(f"{title}: {record.status}{where}{step}: {problem.message}\n  log: {log}")

    def stopping(self) -> None:
        """Print what a second Ctrl-C would do."""
        complain(
            "stopping: runs under way write their records; Ctrl-C again ends them at once",
            style="yellow",
        )

    def lost(self, name: str, error: Exception) -> None:
        """Print that a listener has failed."""
        complain(f"{name} failed and gets no more data: {type(error).__name__}: {error}")


def _print_substitutions(plan: Plan, items: Iterable[Substitution]) -> None:
    for item in items:
        line = str(item)
        say(f"{title_of(plan)}: {line}", style="yellow")
