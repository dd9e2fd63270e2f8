"""Listener: what wants to know how plans become records, such as a display or a tracker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import HarnessError
from harness.records.events import Event
from harness.records.record import RunRecord
from harness.spec.plan import Plan


@dataclass(frozen=True)
class RunResult:
    """What has become of a plan: its record, or why it could not be run at all.

    The record may be that of a smaller plan, where ``plan`` did not fit into memory.
    """

    plan: Plan
    record: RunRecord | None = None
    error: HarnessError | None = None


class Listener:
    """Does nothing on every occasion; a listener overrides the ones that it cares about.

    All calls come one at a time from the thread that runs the batch. Plans of a batch may run at
    the same time; ``plan`` says which one an event belongs to. A listener that raises is told
    nothing more, and the batch goes on without it.
    """

    def begin(self, plans: Sequence[Plan]) -> None:
        """Before the first of ``plans`` is run."""

    def more(self, plans: Sequence[Plan]) -> None:
        """Further ``plans`` are run in the same batch."""

    def hear(self, plan: Plan, event: Event) -> None:
        """Something has happened in the run of ``plan``."""

    def result(self, result: RunResult) -> None:
        """A plan has its record, or cannot be run."""

    def lost(self, name: str, error: Exception) -> None:
        """Another listener, of the class ``name``, has failed and is told nothing more."""

    def stopping(self) -> None:
        """The batch is cut short: runs under way write their records, and no more are begun."""

    def end(self) -> None:
        """After the last result, also of a batch that is cut short."""
