"""Carried: the records and decisions of a published study, taken in so that it can go on here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, StorageError, UserError
from harness.records.store import BrokenRun, RunFolder, RunStore
from harness.report.publish import RECORDS
from harness.report.trust import trusted
from harness.spec.plan import Plan
from harness.spec.storage import read_json, write_bytes
from harness.studies.open import OpenStudy
from harness.studies.published import STUDY, PublishedStudy
from harness.studies.resolved import ResolvedArms, unlimited
from harness.studies.steering import Steering, add_decisions

LOCATED = "say where they lie with --data, --model and --set score.data_folder=FOLDER"


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

    Runs that are here already stay as they are. All are checked before the first is copied. What
    the study compared is kept too, so that it can be looked at without its device or its data.

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
    decisions = add_decisions(opened.log, there.decisions)
    opened.kept_arms.keep(_resolved(there))
    return Carried(len(new), len(runs) - len(new), decisions)


def _resolved(there: PublishedStudy) -> ResolvedArms:
    """What was compared, on the device where it was; paths in it are cut to their last part."""
    return ResolvedArms(
        study=unlimited(there.study),
        device=there.arms[0].device,
        decided=Steering(there.decisions).added,
        arms=there.arms,
        reference=there.reference,
        added=there.added,
    )


def refuse_unlike(published: Path, opened: OpenStudy) -> None:
    """Refuse to begin anew beside runs that were taken in and that this machine cannot go on with.

    A study under another name is one of its own.

    Raises:
        UserError: device, data or model are others here than those of the published runs.
    """
    there = read_json(published / RECORDS / STUDY, PublishedStudy)
    if there.study.name != opened.study.name:
        return
    arms = {arm.variant: arm for arm in there.arms}
    try:
        here = opened.comparison().by_label
    except HarnessError as error:
        error.hint = f"a published study does not hold data or models: {LOCATED}"
        raise
    pairs = [(arms[label], here[label].plan) for label in here if label in arms]
    if any(theirs.fingerprint == own.fingerprint for theirs, own in pairs):
        return
    found = _differences(*pairs[0]) if pairs else []
    raise UserError(
        f"none of the runs published in {published} is one that is asked for here",
        where=", ".join(found) or "settings differ",
        expected="the same kind of device, data and model",
        hint=f"{LOCATED}; --status looks at it anyway, and with --name it is a study of its own",
    )


def _differences(theirs: Plan, own: Plan) -> Iterator[str]:
    there, here = theirs.device, own.device
    if there != here:
        yield f"{there.told_from(here)} there, {here.told_from(there)} here"
    if theirs.corpus_sha256 != own.corpus_sha256:
        yield "other conversations"
    if theirs.data_sha256 != own.data_sha256:
        yield "other task data (score.data_folder)"
    if theirs.model_sha256 != own.model_sha256 or theirs.model.name != own.model.name:
        yield "another model"


def _copy(source: RunFolder, target: RunFolder) -> None:
    """Copy a published run, the record last."""
    try:
        if source.items.is_dir():
            shutil.copytree(source.items, target.items, dirs_exist_ok=True)
        write_bytes(target.record, source.record.read_bytes())
    except OSError as error:
        raise StorageError(f"cannot copy: {error.strerror}", where=target.path) from None
