"""Build: runs of one suite to a Report, a pure function of records and per-item values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.records.store import BrokenRun, StoredRun
from harness.report.blocks import Section
from harness.report.evidence import Evidence, ReportRequest, gather
from harness.report.sections import make_sections

__all__ = ["Report", "ReportRequest", "build_report"]


@dataclass(frozen=True)
class Report:
    """A report as data: the evidence, and the sections drawn from it."""

    title: str
    evidence: Evidence
    sections: tuple[Section, ...]


def build_report(
    runs: Sequence[StoredRun], broken: Sequence[BrokenRun], request: ReportRequest
) -> Report:
    """Compare the runs of ``request.suite``.

    Args:
        runs: stored runs; those of other suites are ignored.
        broken: folders whose records could not be read; they are named in the report.
        request: reference, margin and the user's limits.

    Raises:
        UnknownName: the reference is not among the rows.
    """
    evidence = gather(runs, broken, request)
    suite = request.suite.partition("+")[0]  # settings stand in the summary
    return Report(f"Fine-tuning report: {suite}", evidence, make_sections(evidence))
