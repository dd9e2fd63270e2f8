"""Carried: the records and decisions of a published study, taken in so that it can go on here."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.errors import StorageError
from harness.records.store import BrokenRun, RunFolder, RunStore
from harness.report.publish import RECORDS
from harness.report.trust import trusted
from harness.spec.storage import read_json, write_bytes
from harness.studies.open import OpenStudy
from harness.studies.published import STUDY, PublishedStudy
from harness.studies.steering import read_steering, take_over


@dataclass(frozen=True)
class Carried:
    """What was new here: runs and decisions; ``known`` runs were here already."""

    runs: int
    known: int
    decisions: int

    def __str__(self) -> str:
        """In words."""
        known = f" ({self.known} were here already)" if self.known else ""
        return f"taken in: {self.runs} runs{known} and {self.decisions} decisions"


def carry_in(published: Path, opened: OpenStudy) -> Carried:
    """Copy the runs that were published in ``published``, and the decisions about the study.

    Runs that are here already stay as they are. All are checked before the first is copied.

    Raises:
        HarnessError: a record there cannot be read, or the reports folder cannot be written.
    """
    there = read_json(published / RECORDS / STUDY, PublishedStudy)
    runs = []
    for run in trusted(RunStore(published / RECORDS).scan()):
        if isinstance(run, BrokenRun):
            raise run.error
        runs.append(run)
    store = opened.findings.store
    new = [run for run in runs if not store.folder(run.record.plan).record.exists()]
    for run in new:
        _copy(run.folder, store.folder(run.record.plan))
    before = len(read_steering(opened.log).decisions)
    take_over(opened.log, [one.model_dump_json() for one in there.decisions], str(published))
    after = len(read_steering(opened.log).decisions)
    return Carried(len(new), len(runs) - len(new), after - before)


def _copy(source: RunFolder, target: RunFolder) -> None:
    """Copy a published run, the record last."""
    try:
        if source.items.is_dir():
            shutil.copytree(source.items, target.items, dirs_exist_ok=True)
        write_bytes(target.record, source.record.read_bytes())
    except OSError as error:
        raise StorageError(f"cannot copy: {error.strerror}", where=target.path) from None
