"""Sections: what a report says, in reading order; a new section is one function named here."""

from __future__ import annotations

from collections.abc import Callable

from harness.report.accounting import accounting_section
from harness.report.blocks import Section
from harness.report.costs import memory_section, time_section
from harness.report.curves import loss_section, sweep_section
from harness.report.data import corpus_section, generations_section
from harness.report.devices import devices_section
from harness.report.differences import differences_section, noise_section
from harness.report.evidence import Evidence
from harness.report.forms import forms_section
from harness.report.opened import opened_section
from harness.report.provenance import provenance_section
from harness.report.ranking import ranking_section
from harness.report.reproduce import reproduce_section
from harness.report.summary import summary_section
from harness.report.tradeoff import tradeoff_section

SECTIONS: tuple[Callable[[Evidence], Section | None], ...] = (
    summary_section,
    ranking_section,
    tradeoff_section,
    differences_section,
    accounting_section,
    noise_section,
    loss_section,
    memory_section,
    time_section,
    devices_section,
    sweep_section,
    corpus_section,
    generations_section,
    forms_section,
    provenance_section,
    opened_section,
    reproduce_section,
)


def make_sections(evidence: Evidence) -> tuple[Section, ...]:
    """All sections that have something to say."""
    made = (section(evidence) for section in SECTIONS)
    return tuple(section for section in made if section is not None and section.blocks)
