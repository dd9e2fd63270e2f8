"""Brief: what a page about the whole project says of the published findings, as markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.report import markdown
from harness.report.blocks import Section, Table, prose
from harness.report.claims.decide import LEANINGS
from harness.report.claims.figures import findings_figures
from harness.report.claims.ground import Ground, main_ground
from harness.report.claims.judge import Judgement, main_judged
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
from harness.report.claims.quality import NAME as PICTURE
from harness.report.write import markdown_page


def findings_brief(folder: Path) -> str:
    """The settled claims, the first figure and the advice of published findings.

    Links start at the folder that holds ``reports``, where the project's own page lies.
    """
    judged, grounds, _ = judge_published(folder)
    main = main_judged(judged) or main_ground(grounds)
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
    more = f"All of them, what was measured and what it cost: [{place}]({place}/{FINDINGS})."
    return "\n\n".join([text, *_picture(main, place), more]) + "\n"


def _picture(main: Ground | None, place: str) -> Iterator[str]:
    """The first figure and what it shows, where there is one."""
    figures = () if main is None else findings_figures(main)
    figure = next((found for found in figures if found.name == PICTURE), None)
    if figure is not None:
        yield f"![{markdown.escape(figure.alt)}]({place}/figures/{PICTURE}.png)"
        yield f"*{markdown.escape(figure.caption)}*"


def _settled(reached: Sequence[Judgement]) -> Table:
    table = verdicts(reached)
    kept = [row for row, one in zip(table.rows, reached, strict=True) if one.outcome in LEANINGS]
    return Table("settled", table.columns, tuple(kept))
