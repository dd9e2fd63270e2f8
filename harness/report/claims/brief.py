"""Brief: what a page about the whole project says of the published findings, as markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.report.blocks import Section, Table, prose
from harness.report.claims.decide import LEANINGS
from harness.report.claims.judge import Judgement
from harness.report.claims.page import (
    EXCLUDED,
    ClaimsPage,
    advice,
    by_verdict,
    ground_here,
    notes,
    summary,
    verdicts,
    widths,
)
from harness.report.claims.publish import FINDINGS, judge_published
from harness.report.write import markdown_page

PICTURE = "findings-bytes"


def findings_brief(folder: Path) -> str:
    """The settled claims, the first figure and the advice of published findings.

    Links start at the folder that holds ``reports``, where the project's own page lies.
    """
    judged, _, _ = judge_published(folder)
    judged = by_verdict(judged)
    reached = [one for one in judged if one.ground is not None]
    if not reached:
        return ""
    place = f"{folder.parent.name}/{folder.name}"
    blocks = (
        prose(
            f"{summary(judged)} Here: {ground_here(reached)}. The settled ones; "
            "measured is the held-out perplexity of the first against the second, or what is "
            f"named. {EXCLUDED} {widths(reached)}."
        ),
        *notes(reached),
        _settled(reached),
        *advice(reached),
    )
    page = markdown_page(ClaimsPage("", (Section("brief", "brief", blocks),)))
    text = page.partition("## brief\n")[2].strip()
    picture = f"![Held-out perplexity against bytes]({place}/figures/{PICTURE}.png)"
    more = f"All of them, what was measured and what it cost: [{place}]({place}/{FINDINGS})."
    return f"{text}\n\n{picture}\n\n{more}\n"


def _settled(reached: Sequence[Judgement]) -> Table:
    table = verdicts(reached)
    kept = [row for row, one in zip(table.rows, reached, strict=True) if one.outcome in LEANINGS]
    return Table("settled", table.columns, tuple(kept))
