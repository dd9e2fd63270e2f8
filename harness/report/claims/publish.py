"""Publish: the findings beside the records they come from, so that anybody can make them again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from harness.records.record import RunRecord
from harness.records.store import StoredRun
from harness.records.validation import is_trial
from harness.report.claims.about import MachineUse, about_section
from harness.report.claims.figures import findings_figures
from harness.report.claims.ground import Ground, main_ground, make_grounds
from harness.report.claims.judge import Judgement, judge, main_judged
from harness.report.claims.page import claims_page
from harness.report.publish import RECORDS, add_records
from harness.report.sides import read_runs
from harness.report.write import METHODS, markdown_page, methods_page, write_figure
from harness.spec.claim import Claim
from harness.spec.registry import claim_names, load_claim
from harness.spec.storage import read_json, write_bytes

FINDINGS = "FINDINGS.md"
BESIDE = "beside.json"  # names of the other reports whose records the findings rest on
ABOUT, SPENT = "about.md", "spent.json"


def publish_findings(
    claims: Sequence[Claim], runs: Sequence[StoredRun], folder: Path, others: Sequence[Path] = ()
) -> Path:
    """Write the findings of ``runs`` into ``folder``, with those records that it does not hold yet.

    So the findings of a published study can take in further runs on the same ground. Trials keep
    the value of their scores alone.

    ``others`` are published reports in the same parent folder whose records count too: their
    names are kept in ``beside.json``, the records stay where they are.

    Returns:
        The path of ``FINDINGS.md``; :func:`write_findings` makes it again from the records.
    """
    beside = [other for other in others if is_beside(other, folder)]
    add_records(_new(runs, [folder, *beside]), folder, lambda run: not is_trial(run.record))
    names = sorted(other.name for other in beside)
    write_bytes(folder / BESIDE, (json.dumps(names) + "\n").encode())
    write_bytes(folder / METHODS, methods_page())
    return write_findings(folder, folder, claims)


def _new(runs: Sequence[StoredRun], published: Sequence[Path]) -> list[StoredRun]:
    """The runs that ended, well or not, and are in none of these folders' records.

    One that ended badly gives way to its later record, and to any that ended well.
    """
    known: dict[str, RunRecord] = {}
    new: dict[str, StoredRun] = {}
    there = [run for place in published for run in read_runs(place / RECORDS)[0]]
    for number, run in enumerate([*there, *runs]):
        record, name = run.record, run.record.plan.run_name
        held = known.get(name)
        if record.status == "interrupted" or (held is not None and not _replaces(record, held)):
            continue
        known[name] = record
        if number >= len(there):
            new[name] = run
    return list(new.values())


def _replaces(record: RunRecord, held: RunRecord) -> bool:
    if held.status == "ok":
        return False
    return record.status == "ok" or record.started_at > held.started_at


def is_beside(other: Path, folder: Path) -> bool:
    """Whether ``other`` is a published report that lies in the same folder as ``folder``."""
    own, its = folder.resolve(), other.resolve()
    return its != own and its.parent == own.parent and (its / RECORDS).is_dir()


def write_findings(published: Path, folder: Path, claims: Sequence[Claim] = ()) -> Path:
    """Write what the records of ``published`` say of the claims, and its figures, to ``folder``.

    All built-in claims are judged by default. ``about.md`` beside the records may hold paragraphs
    of the author's, ``spent.json`` what records do not say of the machine
    (:class:`harness.report.claims.about.MachineUse`).
    """
    judged, grounds, own = judge_published(published, claims)
    main = main_judged(judged) or main_ground(grounds)
    figures = [] if main is None else list(findings_figures(main))
    for figure in figures:
        write_figure(figure, folder)
    about = [about_section(main, own, _spent(published), _told(published))] if main and own else []
    path = folder / FINDINGS
    write_bytes(path, markdown_page(claims_page(judged, figures, about)).encode())
    return path


def judge_published(
    published: Path, claims: Sequence[Claim] = ()
) -> tuple[list[Judgement], list[Ground], list[StoredRun]]:
    """The claims judged by published records and those beside them, the grounds, its own runs."""
    asked = claims or [load_claim(name) for name in claim_names()]
    beside = json.loads((published / BESIDE).read_bytes())
    own, *others = (
        read_runs(place / RECORDS)[0]
        for place in [published, *(published.parent / name for name in beside)]
    )
    runs = [*own, *(run for found in others for run in found)]
    return judge(asked, runs), make_grounds(runs), own


def _spent(published: Path) -> MachineUse:
    path = published / SPENT
    return read_json(path, MachineUse) if path.is_file() else MachineUse()


def _told(published: Path) -> list[str]:
    path = published / ABOUT
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]
