"""Publish: the findings beside the records they come from, so that anybody can make them again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.records.store import StoredRun
from harness.report.claims.judge import Judgement, judge
from harness.report.claims.page import claims_page
from harness.report.publish import RECORDS, publish
from harness.report.sides import read_runs
from harness.report.write import METHODS, markdown_page, methods_page
from harness.spec.claim import Claim
from harness.spec.registry import claim_names, load_claim
from harness.spec.storage import write_bytes

FINDINGS = "findings.md"


def publish_findings(claims: Sequence[Claim], runs: Sequence[StoredRun], folder: Path) -> Path:
    """Write the findings of ``runs`` into ``folder``, with the records if it holds none yet.

    Returns:
        The path of ``findings.md``; :func:`findings_of` gives its text again.
    """
    if not (folder / RECORDS).is_dir():
        publish(runs, folder)
    path = folder / FINDINGS
    write_bytes(path, findings_of(folder, claims).encode())
    write_bytes(folder / METHODS, methods_page())
    return path


def findings_of(folder: Path, claims: Sequence[Claim] = ()) -> str:
    """The findings that the records of a published folder give; of all claims by default."""
    asked = claims or [load_claim(name) for name in claim_names()]
    runs, _ = read_runs(folder / RECORDS)
    return text_of(judge(asked, runs))


def text_of(judged: Sequence[Judgement]) -> str:
    """The page as Markdown."""
    return markdown_page(claims_page(judged))
