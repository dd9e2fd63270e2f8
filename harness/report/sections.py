"""Sections: what a report says, one function per section; add one here and it is in every page."""

from __future__ import annotations

from collections.abc import Callable

from harness.report.blocks import Section, prose
from harness.report.differences import differences_section
from harness.report.evidence import Evidence
from harness.report.ranking import ranking
from harness.report.tradeoff import tradeoff_section


def make_sections(evidence: Evidence) -> tuple[Section, ...]:
    """All sections that have something to say, in reading order."""
    made = (section(evidence) for section in SECTIONS)
    return tuple(section for section in made if section is not None and section.blocks)


def ranking_section(evidence: Evidence) -> Section | None:
    """Every variant, best first, failures included."""
    if not evidence.rows:
        return Section("ranking", "Ranking", (prose("No runs yet."),))
    return Section("ranking", "Ranking", (ranking(evidence),))


SECTIONS: tuple[Callable[[Evidence], Section | None], ...] = (
    ranking_section,
    tradeoff_section,
    differences_section,
)
