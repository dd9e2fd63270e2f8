"""RunStore: finds, reads and writes the run folders under ``reports/runs``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.plan import Plan
from harness.record import RunRecord
from harness.schema import read_json, write_json


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def plan(self) -> Path:
        """The plan, written by the parent before the child starts."""
        return self.path / "plan.json"

    @property
    def record(self) -> Path:
        """The record, written whole at the end."""
        return self.path / "record.json"

    @property
    def events(self) -> Path:
        """One JSON object per line, appended by the child."""
        return self.path / "events.jsonl"

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
    def checkpoint(self) -> Path:
        """Training checkpoints; removed once the run is complete."""
        return self.path / "checkpoint"

    @property
    def lock(self) -> Path:
        """Held by the process that is working here."""
        return self.path / ".lock"


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

    def scan(self, suite: str | None = None) -> Iterator[StoredRun | BrokenRun]:
        """Every run below the root (of one suite), in name order; broken ones are named."""
        if suite is not None and suite not in self.suites():
            return
        start = self.root / suite if suite else self.root
        for path in sorted(start.rglob("record.json")):
            folder = RunFolder(path.parent)
            try:
                yield StoredRun(folder, read_json(path, RunRecord))
            except HarnessError as error:
                yield BrokenRun(folder, error)
