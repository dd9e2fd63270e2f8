"""Versions: which code and packages made the runs of a study, and whether this machine has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from harness.errors import UserError
from harness.records.record import RunRecord
from harness.runs.parcel import OWN_SOURCES
from harness.studies.agenda import Agenda

SHOWN = 12  # characters of a version, which may be a digest


def made_by(record: RunRecord) -> dict[str, str]:
    """Versions behind a record, the digest of the harness's own code among them."""
    environment = record.environment
    if environment is None:
        return {}
    own = {} if environment.sources is None else {OWN_SOURCES: environment.sources}
    return environment.packages | own


def refuse_others(agenda: Agenda, here: Mapping[str, str]) -> None:
    """Refuse to add runs made with ``here`` to runs that other versions have made.

    Raises:
        UserError: naming what differs, and in how many runs.
    """
    differing: Counter[str] = Counter()
    for run in agenda.settled.values():
        there = made_by(run.record)
        for name in sorted(there.keys() & here.keys()):
            if there[name] != here[name]:
                differing[f"{name} {there[name][:SHOWN]} (here {here[name][:SHOWN]})"] += 1
    if differing:
        told = "; ".join(f"{text} in {count} runs" for text, count in sorted(differing.items()))
        raise UserError(
            f"runs of this study were made with other versions: {told}",
            expected="one set of versions for all runs that are compared",
            hint="install those versions; begin anew in another folder with --reports; or go on "
            "with --mix-versions, which the page will say",
        )


def mixture(agenda: Agenda) -> str:
    """What differs between the versions behind the runs, as a sentence; empty if nothing does."""
    known = [found for run in agenda.settled.values() if (found := made_by(run.record))]
    told = []
    for name in sorted(set().union(*known)):
        counts = Counter(found.get(name, "missing") for found in known)
        if len(counts) > 1:
            each = ", ".join(
                f"{one[:SHOWN]} in {count} runs" for one, count in sorted(counts.items())
            )
            told.append(f"{name} {each}")
    return f"The runs were made with different versions: {'; '.join(told)}." if told else ""
