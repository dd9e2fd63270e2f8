"""Publish: the findings beside the records they come from, so that anybody can make them again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.records.store import StoredRun
from harness.report.claims.figures import figures_of
from harness.report.claims.ground import make_grounds
from harness.report.claims.judge import judge
from harness.report.claims.page import claims_page
from harness.report.publish import RECORDS, publish
from harness.report.sides import read_runs
from harness.report.write import METHODS, markdown_page, methods_page, write_figure
from harness.spec.claim import Claim
from harness.spec.registry import claim_names, load_claim
from harness.spec.storage import write_bytes

FINDINGS = "FINDINGS.md"


def publish_findings(claims: Sequence[Claim], runs: Sequence[StoredRun], folder: Path) -> Path:
    """Write the findings of ``runs`` into ``folder``, with the records if it holds none yet.

    Returns:
        The path of ``FINDINGS.md``; :func:`write_findings` makes it again from the records.
    """
    if not (folder / RECORDS).is_dir():
        publish(runs, folder)
    write_bytes(folder / METHODS, methods_page())
    return write_findings(folder, folder, claims)


def write_findings(published: Path, folder: Path, claims: Sequence[Claim] = ()) -> Path:
    """Write what the records of ``published`` say of the claims, and its figures, to ``folder``.

    All built-in claims are judged by default.
    """
    asked = claims or [load_claim(name) for name in claim_names()]
    runs, _ = read_runs(published / RECORDS)
    figures = figures_of(make_grounds(runs))
    for figure in figures:
        write_figure(figure, folder)
    path = folder / FINDINGS
    write_bytes(path, markdown_page(claims_page(judge(asked, runs), figures)).encode())
    return path
