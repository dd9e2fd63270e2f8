"""Resolved: a study's variants as they were resolved for a device, kept for other machines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, Field

from harness.errors import HarnessError, InvalidFile, StorageError
from harness.records.record import RunRecord
from harness.records.store import RunStore
from harness.spec.device import Device
from harness.spec.plan import Plan
from harness.spec.schema import Frozen, Migration, Versioned
from harness.spec.storage import parse_json, read_json, write_json
from harness.spec.study import Spending, Study
from harness.studies.arms import Arm, StudyArms

Skipped = Callable[[HarnessError], None]


def _silently(error: HarnessError) -> None:
    """Says nothing of ``error``."""


class ResolvedArms(Versioned):
    """What a study compares on ``device``: its plans at the default learning rates.

    With it another machine finds the records of the study, also one that has no such device, or
    not the data and packages. ``decided`` are the variants that decisions had added.
    """

    SCHEMA_VERSION: ClassVar[int] = 1
    schema_version: int = 1
    study: Study
    device: Device
    decided: tuple[str, ...] = ()
    arms: tuple[Plan, ...]
    reference: str
    added: dict[str, int] = Field(default_factory=dict)

    @classmethod
    def of(cls, comparison: StudyArms, device: Device, decided: tuple[str, ...]) -> ResolvedArms:
        """What is kept of ``comparison``; how much may be spent makes no difference."""
        return cls(
            study=unlimited(comparison.study),
            device=device,
            decided=decided,
            arms=tuple(arm.plan for arm in comparison.arms),
            reference=comparison.reference,
            added=comparison.added,
        )

    def is_of(self, study: Study) -> bool:
        """Whether it was resolved from ``study`` as its file says now."""
        return self.study == unlimited(study)

    def comparison(self, study: Study) -> StudyArms:
        """The arms, as those of ``study``."""
        arms = tuple(Arm(plan) for plan in self.arms)
        return StudyArms(study, arms, self.reference, dict(self.added))


def parsed_arms(text: str) -> ResolvedArms | None:
    """What a machine laid down as JSON; None where this harness cannot read it."""
    try:
        return parse_json(text, ResolvedArms, where="--store")
    except InvalidFile:
        return None


class KeptArms:
    """All that a study was ever resolved to, a file each in a folder beside its page."""

    def __init__(self, folder: Path) -> None:
        """Look into ``folder``; it need not exist."""
        self._folder = folder

    def keep(self, found: ResolvedArms) -> None:
        """Add ``found``, unless it is there.

        Raises:
            StorageError: the folder cannot be written.
        """
        digest = hashlib.sha256(found.model_dump_json().encode()).hexdigest()
        path = self._folder / f"{digest[:32]}.json"
        if not path.is_file():
            write_json(path, found)

    def take_over(self, texts: Iterable[str], where: str, skipped: Skipped = _silently) -> None:
        """Add what other machines have laid down as JSON at ``where``.

        A newer harness may have laid down what this one cannot read: ``skipped`` hears why, and
        the rest is added.
        """
        for text in texts:
            try:
                found = parse_json(text, ResolvedArms, where=where)
            except InvalidFile as error:
                skipped(error)
            else:
                self.keep(found)

    def read(self, skipped: Skipped = _silently) -> Iterator[ResolvedArms]:
        """All of them, in the order of their names; ``skipped`` hears what cannot be read."""
        for path in sorted(self._folder.glob("*.json")):
            try:
                found = read_json(path, ResolvedArms)
            except (InvalidFile, StorageError) as error:
                skipped(error)
            else:
                yield found


class _PlanDevice(Frozen):
    model_config = ConfigDict(extra="ignore")
    device: Device


class _RecordDevice(Versioned):
    """Of a record, where it ran; reading it skips the rest."""

    model_config = ConfigDict(extra="ignore")
    SCHEMA_VERSION: ClassVar[int] = RunRecord.SCHEMA_VERSION
    MIGRATIONS: ClassVar[dict[int, Migration]] = dict(RunRecord.MIGRATIONS)
    schema_version: int
    plan: _PlanDevice


def devices_of(store: RunStore) -> set[Device]:
    """Devices of all runs in ``store``; a record that cannot be read names none."""
    found = set()
    for path in store.records():
        try:
            found.add(read_json(path, _RecordDevice).plan.device)
        except HarnessError:
            continue
    return found


def unlimited(study: Study) -> Study:
    """The study whatever may be spent on it, which makes no other study of it."""
    return study.model_copy(update={"budget": Spending()})
