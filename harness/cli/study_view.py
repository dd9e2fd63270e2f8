"""Study view: what the command prints of a study: its plan, how far it is, its answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness import numbers
from harness.cli.app import out, say
from harness.cli.study_tables import (
    between,
    budget_lines,
    plan_remarks,
    plan_table,
    status_table,
    under_way_table,
)

if TYPE_CHECKING:
    from harness.studies.agenda import Agenda
    from harness.studies.open import OpenStudy


def round_line(agenda: Agenda) -> str:
    """What comes next, and how long all that may still come will take."""
    from harness.studies.outlook import seconds_left

    tuning = sum(job.stage == "tune" for job in agenda.jobs)
    parts = [f"{tuning} trials"] if tuning else []
    if len(agenda.jobs) > tuning:
        parts.append(f"{len(agenda.jobs) - tuning} runs for the verdict")
    told = f"next: {' and '.join(parts) or 'nothing'} ({agenda.spent.runs} runs are done)"
    left = seconds_left(agenda) if agenda.jobs else None
    return told if left is None else f"{told}; {between(left, numbers.duration)} of run time to go"


def show_answer(opened: OpenStudy, agenda: Agenda) -> Path:
    """The answer as it stands and what it cost; writes the page and returns where it lies."""
    from harness.studies.answer import answer

    found = answer(agenda)
    say(opened.study.question, style="bold")
    for line in (*found.conclusions, *found.sureness, *found.changes):
        say(f"- {line}")
    say(f"So far: {found.cost}")
    page = opened.write_page(agenda)
    say(f"page: {page}")
    return page


def show_verdicts_of(agenda: Agenda) -> None:
    """What the study's runs say of the claims to which it is limited."""
    from harness.cli.claims import show_verdicts
    from harness.studies.claimed import verdicts

    show_verdicts(verdicts(agenda))


def show_status(opened: OpenStudy, agenda: Agenda) -> None:
    """How far it is, and what runs of it are under way anywhere."""
    from harness.studies.under_way import under_way

    out.print(status_table(agenda))
    if found := list(under_way(agenda, opened.findings.store)):
        out.print(under_way_table(found))
    say(round_line(agenda))


def show_plan(opened: OpenStudy, agenda: Agenda, peak_share: float) -> None:
    """What the study will need, by stage; nothing is written."""
    from harness.forecast.arithmetic import training_seconds_by_peak
    from harness.forecast.duration import whole_run_seconds
    from harness.runs.shared_devices import predicted_bytes
    from harness.studies.claimed import check_claims
    from harness.studies.outlook import outlook

    check_claims(opened.comparison())
    say(opened.study.question, style="bold")
    runs = opened.findings.store.root
    tell = training_seconds_by_peak(peak_share) if peak_share else whole_run_seconds(runs)
    stages = outlook(agenda, tell, predicted_bytes)
    out.print(plan_table(stages))
    for line in plan_remarks(agenda, peak_share):
        say(line)
    if not peak_share:
        for line in budget_lines(agenda, tell):
            say(line)
    say(round_line(agenda))
    if agenda.stopped:
        say(f"The study has stopped: {agenda.stopped}.")
