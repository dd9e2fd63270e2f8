"""Hears why: what makes an executor of tests one that is told why it is cancelled."""

from __future__ import annotations


class HearsWhy:
    """Beside an executor as a base: it remembers the reason, and is cancelled."""

    reason: str | None = None

    def cancel_because(self, reason: str) -> None:
        """As `harness.runs.executor.ExplainedExecutor`."""
        self.reason = reason
        self.cancel()

    def cancel(self) -> None:
        """What the executor does."""
        super().cancel()  # type: ignore[misc]
