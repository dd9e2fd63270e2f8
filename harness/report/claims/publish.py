"""Publish: the findings beside the records they come from, so that anybody can make them again."""

from __future__ import annotations

import json
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
BESIDE = "beside.json"  # names of the other reports whose records the findings rest on


def publish_findings(
    claims: Sequence[Claim], runs: Sequence[StoredRun], folder: Path, others: Sequence[Path] = ()
) -> Path:
    """Write the findings of ``runs`` into ``folder``, with the records if it holds none yet.

    ``others`` are published reports in the same parent folder whose records count too: their
    names are kept in ``beside.json``, the records stay where they are.

    Returns:
        The path of ``FINDINGS.md``; :func:`write_findings` makes it again from the records.
    """
    if not (folder / RECORDS).is_dir():
        publish(runs, folder)
    beside = sorted(other.name for other in others if is_beside(other, folder))
    write_bytes(folder / BESIDE, (json.dumps(beside) + "\n").encode())
    write_bytes(folder / METHODS, methods_page())
    return write_findings(folder, folder, claims)


def is_beside(other: Path, folder: Path) -> bool:
    """Whether ``other`` is a published report that lies in the same folder as ``folder``."""
    own, its = folder.resolve(), other.resolve()
    return its != own and its.parent == own.parent and (its / RECORDS).is_dir()


def write_findings(published: Path, folder: Path, claims: Sequence[Claim] = ()) -> Path:
    """Write what the records of ``published`` say of the claims, and its figures, to ``folder``.

    All built-in claims are judged by default.
    """
    asked = claims or [load_claim(name) for name in claim_names()]
    beside = json.loads((published / BESIDE).read_bytes())
    places = [published, *(published.parent / name for name in beside)]
    runs = [run for place in places for run in read_runs(place / RECORDS)[0]]
    figures = figures_of(make_grounds(runs))
    for figure in figures:
        write_figure(figure, folder)
    path = folder / FINDINGS
    write_bytes(path, markdown_page(claims_page(judge(asked, runs), figures)).encode())
    return path
