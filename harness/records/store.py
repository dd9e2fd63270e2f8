"""RunStore: finds, reads and writes the run folders under ``reports/runs``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict

from harness.errors import HarnessError, StorageError
from harness.records.record import RunRecord, Score, Status
from harness.spec.digests import file_sha256
from harness.spec.plan import Plan
from harness.spec.schema import Frozen, Migration, Versioned
from harness.spec.storage import read_json, write_bytes, write_json


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def variant(self) -> str:
        """Name of the variant, which is that of the folder above."""
        return self.path.parent.name

    @property
    def plan(self) -> Path:
        """The plan, written by the parent before the child starts."""
        return self.path / "plan.json"

    @property
    def options(self) -> Path:
        """How the plan is to be treated, written by the parent too."""
        return self.path / "options.json"

    @property
    def record(self) -> Path:
        """The record, written whole at the end."""
        return self.path / "record.json"

    @property
    def events(self) -> Path:
        """One JSON object per line, appended by the child."""
        return self.path / "events.jsonl"

    def events_of(self, rank: int) -> Path:
        """What the process of a device says: the first one's events are the run's."""
        return self.events if rank == 0 else self.path / f"events-{rank}.jsonl"

    def ending_of(self, rank: int) -> Path:
        """How the process of a device ended, where several share a run and it did not end well."""
        return self.path / f"ending-{rank}.json"

    @property
    def log(self) -> Path:
        """What the child and its libraries print."""
        return self.path / "log.txt"

    @property
    def items(self) -> Path:
        """Per-item score values, parquet."""
        return self.path / "items"

    @property
    def adapter(self) -> Path:
        """The trained adapter."""
        return self.path / "adapter"

    @property
    def rest(self) -> Path:
        """Says where what is missing here still lies: a run that another machine made."""
        return self.path / "rest.json"

    @property
    def checkpoint(self) -> Path:
        """Training checkpoints, in an attempt."""
        return self.path / "checkpoint"

    @property
    def lock(self) -> Path:
        """Held by the process that is working here."""
        return self.path / ".lock"

    def lock_of(self, rank: int) -> Path:
        """Held by the process of a device; the first one's is the run's."""
        return self.lock if rank == 0 else self.path / f".lock-{rank}"

    @property
    def holder(self) -> Path:
        """Names the process that holds the lock."""
        return self.path / ".holder"

    @property
    def attempt(self) -> RunFolder:
        """Where a run works until it has ended; what is here is not yet the result.

        It stays after an ending other than ``ok``, so that the next attempt can go on from it.
        """
        return RunFolder(self.path / "attempt")

    def take(self, source: Path) -> None:
        """Make a run folder that was carried out elsewhere the result, the record last.

        Raises:
            OSError: the folder cannot be written.
        """
        for name in ("items", "adapter"):
            _move_folder(source / name, self.path / name)
        came = RunFolder(source)
        self.rest.unlink(missing_ok=True)
        for path in (came.log, came.events, came.plan, came.rest, came.record):
            if path.is_file():
                write_bytes(self.path / path.name, path.read_bytes())

    def publish(self, *, whole: bool) -> None:
        """Make the attempt the result, the record last; a second call completes a first.

        A ``whole`` one, which ended well, is moved; of another, a copy is the result, since a
        later attempt goes on from it.

        Raises:
            StorageError: the folder cannot be written.
        """
        attempt = self.attempt
        try:
            self.rest.unlink(missing_ok=True)
            for name in ("items", "adapter"):
                if whole:
                    _move_folder(attempt.path / name, self.path / name)
                else:
                    _copy_folder(attempt.path / name, self.path / name)
            for source in (attempt.log, attempt.events, attempt.plan, attempt.record):
                if source.is_file():
                    write_bytes(self.path / source.name, source.read_bytes())
            if whole:
                shutil.rmtree(attempt.path, ignore_errors=True)
        except OSError as error:
            raise StorageError(f"cannot write: {error.strerror}", where=self.path) from None


def _move_folder(source: Path, target: Path) -> None:
    """Put ``source`` in the place of ``target``; nothing to do where it has been moved already."""
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        source.replace(target)


def _copy_folder(source: Path, target: Path) -> None:
    """Put a copy of ``source`` in the place of ``target``; without a source both are gone."""
    scratch = target.with_name(f".{target.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    if source.is_dir():
        shutil.copytree(source, scratch)
    shutil.rmtree(target, ignore_errors=True)
    if scratch.is_dir():
        scratch.replace(target)


def is_whole(score: Score, folder: Path) -> bool:
    """Whether the items of ``score`` below ``folder`` are the ones that were written.

    Older scores hold no digest; of theirs the file need only be there.
    """
    if score.items is None:
        return True
    path = folder / score.items
    try:
        return path.is_file() and score.items_sha256 in (None, file_sha256(path))
    except HarnessError:
        return False


def altered_part(record: RunRecord, folder: RunFolder) -> Path | None:
    """The first file of the adapter in ``folder`` that is not as ``record`` says, if any.

    Older records hold no digests.

    Raises:
        StorageError: a file cannot be read.
    """
    for name, written in record.adapter_sha256.items():
        path = folder.adapter / name
        if not path.is_file() or file_sha256(path) != written:
            return path
    return None


@dataclass(frozen=True)
class StoredRun:
    """A record and where it lies."""

    folder: RunFolder
    record: RunRecord


@dataclass(frozen=True)
class BrokenRun:
    """A folder whose record cannot be read, and why."""

    folder: RunFolder
    error: HarnessError


class RunName(Frozen):
    """What a listing says of a plan."""

    model_config = ConfigDict(extra="ignore")
    variant: str
    suite: str
    seed: int


class RunLine(Versioned):
    """What a listing says of a run; reading it skips the rest of the record."""

    model_config = ConfigDict(extra="ignore")
    SCHEMA_VERSION: ClassVar[int] = RunRecord.SCHEMA_VERSION
    MIGRATIONS: ClassVar[Mapping[int, Migration]] = RunRecord.MIGRATIONS
    schema_version: int
    plan: RunName
    status: Status
    started_at: str
    seconds: float


class RunStore:
    """Runs below one folder, usually ``reports/runs``."""

    def __init__(self, root: Path) -> None:
        """Take ``root``; it need not exist yet."""
        self.root = root

    def folder(self, plan: Plan) -> RunFolder:
        """Where the run of ``plan`` belongs."""
        return RunFolder(self.root / plan.run_name)

    def find(self, plan: Plan) -> RunRecord | None:
        """The record of an equal plan, if it can be read."""
        folder = self.folder(plan)
        if not folder.record.is_file():
            return None
        try:
            record = read_json(folder.record, RunRecord)
        except HarnessError:
            return None
        return record if record.plan.fingerprint == plan.fingerprint else None

    def write(self, record: RunRecord) -> Path:
        """Write a record atomically; returns its path."""
        path = self.folder(record.plan).record
        write_json(path, record)
        return path

    def suites(self) -> list[str]:
        """Names of the suites that have runs, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(
            path.name
            for path in self.root.iterdir()
            if path.is_dir() and not path.name.startswith(".")
        )

    def records(self, suite: str | None = None) -> list[Path]:
        """Files of all records below the root (of one suite), in name order."""
        return self._below(suite, "record.json")

    def scan(self, suite: str | None = None) -> Iterator[StoredRun | BrokenRun]:
        """Every run below the root (of one suite), in name order; broken ones are named."""
        for path in self.records(suite):
            yield self.read(path)

    def read(self, path: Path) -> StoredRun | BrokenRun:
        """The run whose record is ``path``."""
        folder = RunFolder(path.parent)
        try:
            return StoredRun(folder, read_json(path, RunRecord))
        except HarnessError as error:
            return BrokenRun(folder, error)

    def lines(self, suite: str | None = None) -> Iterator[RunLine | BrokenRun]:
        """One line per run below the root (of one suite), in name order; faster than scanning."""
        for path in self.records(suite):
            try:
                yield read_json(path, RunLine)
            except HarnessError as error:
                yield BrokenRun(RunFolder(path.parent), error)

    def attempts(self, suite: str | None = None) -> Iterator[RunFolder]:
        """Folders of runs (of one suite) that are under way or were given up."""
        for path in self._below(suite, "attempt/plan.json"):
            yield RunFolder(path.parents[1])

    def _below(self, suite: str | None, name: str) -> list[Path]:
        """Files of that name in run folders, which lie at <suite>/<variant>/<seed>-<digest>."""
        if suite is not None and suite not in self.suites():
            return []
        starts = [suite] if suite is not None else self.suites()
        return sorted(path for start in starts for path in (self.root / start).glob(f"*/*/{name}"))
