"""Published: a study's page with the records that it can be made from again, on any machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from harness.records.record import RunRecord
from harness.records.store import BrokenRun, RunFolder, StoredRun
from harness.report.publish import RECORDS, cut_paths, publish, without_folders
from harness.report.trust import trusted
from harness.report.write import write_report
from harness.spec.plan import Plan
from harness.spec.schema import Frozen, Versioned
from harness.spec.storage import read_json, write_json
from harness.spec.study import Study
from harness.studies.agenda import Agenda, next_plans
from harness.studies.arms import Arm, StudyArms
from harness.studies.findings import Job, Stage
from harness.studies.page import make_page
from harness.studies.steering import Decision, Steering

STUDY = "study.json"


class PublishedRun(Frozen):
    """Which run of the study a published record is of; ``folder`` lies below the records."""

    stage: Stage
    arm: str
    rate: float
    share: float
    seed: int
    folder: str


class PublishedStudy(Versioned):
    """All that a study's page is made of, beside the records of its runs.

    ``arms`` are the plans of the variants at their default learning rates, resolved for the
    device on which the study ran. ``added`` says of those that a decision added which it was.
    """

    SCHEMA_VERSION: ClassVar[int] = 1
    schema_version: int = 1
    study: Study
    arms: tuple[Plan, ...]
    reference: str
    added: dict[str, int] = Field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()
    runs: tuple[PublishedRun, ...]

    @model_validator(mode="after")
    def _folders_lie_inside(self) -> PublishedStudy:
        for run in self.runs:
            parts = Path(run.folder).parts
            if ".." in parts or Path(run.folder).is_absolute():
                msg = f"{run.folder} lies outside the published records"
                raise ValueError(msg)
        return self


def is_published(folder: Path) -> bool:
    """Whether ``folder`` holds the page of a study that its records can give again."""
    return (folder / RECORDS / STUDY).is_file()


def published_study(folder: Path) -> Study:
    """The study published in ``folder``, under the name that it had.

    Raises:
        HarnessError: it cannot be read.
    """
    return read_json(folder / RECORDS / STUDY, PublishedStudy).study


def publish_study(agenda: Agenda, steering: Steering, folder: Path) -> Path:
    """Write the settled runs of a study below ``folder`` without text of the data, and its page.

    Trials keep the value of their scores; runs for the verdict keep the items too, with hashes
    for names.

    Returns:
        The path of ``report.md``. :func:`rebuild_study` makes the same bytes again.

    Raises:
        HarnessError: a record cannot be read, or the folder cannot be written.
    """
    whole = {job: _whole(found) for job, found in agenda.settled.items()}
    verdicts = {run.folder for job, run in whole.items() if job.stage == "verdict"}
    publish(whole.values(), folder, lambda run: run.folder in verdicts)
    comparison = agenda.comparison
    published = PublishedStudy(
        study=Study.model_validate_json(_cut(comparison.study)),
        arms=tuple(without_folders(arm.plan) for arm in comparison.arms),
        reference=comparison.reference,
        added=comparison.added,
        decisions=tuple(Decision.model_validate_json(_cut(one)) for one in steering.decisions),
        runs=tuple(_entry(job, run) for job, run in whole.items()),
    )
    write_json(folder / RECORDS / STUDY, published)
    return rebuild_study(folder, folder)


def rebuild_study(published: Path, folder: Path) -> Path:
    """Write the page of a published study anew into ``folder``; returns the markdown file.

    Raises:
        HarnessError: the study or a record cannot be read.
    """
    return write_report(make_page(*read_study(published)), folder)


def read_study(folder: Path) -> tuple[Agenda, Steering]:
    """The study published in ``folder``; nothing of it is looked up on this machine.

    Raises:
        HarnessError: the study or a record cannot be read, or its items contradict it.
    """
    root = folder / RECORDS
    published = read_json(root / STUDY, PublishedStudy)
    arms = tuple(Arm(plan) for plan in published.arms)
    comparison = StudyArms(published.study, arms, published.reference, published.added)
    steering = Steering(published.decisions)
    runs = {_name(entry): _read(root, entry) for entry in published.runs}
    return next_plans(comparison, lambda job: runs.get(_name(job)), steering), steering


def _name(run: Job | PublishedRun) -> tuple[str, str, float, float, int]:
    return run.stage, run.arm, run.rate, run.share, run.seed


def _whole(run: StoredRun) -> StoredRun:
    """The run with all of its record, of which a study keeps a part in memory."""
    return StoredRun(run.folder, read_json(run.folder.record, RunRecord))


def _cut(document: Frozen) -> str:
    """The document as JSON, absolute paths cut to their last part."""
    return json.dumps(cut_paths(document.model_dump(mode="json")))


def _entry(job: Job, run: StoredRun) -> PublishedRun:
    return PublishedRun(
        stage=job.stage,
        arm=job.arm,
        rate=job.rate,
        share=job.share,
        seed=job.seed,
        folder=run.record.plan.run_name,
    )


def _read(root: Path, entry: PublishedRun) -> StoredRun:
    folder = RunFolder(root / entry.folder)
    (found,) = trusted([StoredRun(folder, read_json(folder.record, RunRecord))])
    if isinstance(found, BrokenRun):
        raise found.error
    return found
