"""Complaints: what happens to a record that cannot be used, and the count of such records."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from harness.errors import CorpusError


class Complaints:
    """Stops at the first bad record, or skips and counts it, as the suite's ``on_bad`` says."""

    def __init__(self, on_bad: Literal["error", "skip"] = "error") -> None:
        """Take the suite's choice."""
        self._on_bad = on_bad
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, error: CorpusError) -> None:
        """Count ``error`` under its first line.

        Raises:
            CorpusError: the suite wants no bad record skipped.
        """
        if self._on_bad == "error":
            hint = error.hint or 'mend the file, or set on_bad = "skip" in [corpus] to count it'
            raise CorpusError(error.what, where=error.where, expected=error.expected, hint=hint)
        self._counts[error.what] += 1
        self._first.setdefault(error.what, error.where or "")

    @property
    def total(self) -> int:
        """Records and messages skipped."""
        return self._counts.total()

    def summary(self) -> str:
        """Every kind of complaint with its count and the first place."""
        return "; ".join(
            f"{count} × {what} (first: {self._first[what]})"
            for what, count in self._counts.most_common()
        )
