"""Sides: the runs, variants or folders of records that a user names to compare."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, UnknownName, UserError
from harness.records.address import RunAddress
from harness.records.record import RunRecord
from harness.records.store import BrokenRun, RunFolder, RunStore, StoredRun
from harness.report.rows import Row, make_rows
from harness.report.trust import trusted
from harness.spec.storage import read_json


@dataclass(frozen=True)
class Side:
    """One side of a comparison: what the user typed, and its rows."""

    name: str
    rows: tuple[Row, ...]
    broken: tuple[BrokenRun, ...] = ()


def find_side(target: str, runs: Path, suite: str | None = None) -> Side:
    """Find what the user named: a run folder, a folder of records, or a variant below ``runs``.

    A variant is named alone or as its runs are elsewhere: SUITE/VARIANT or SUITE/VARIANT/SEED.

    Raises:
        UserError: the folder holds no record.
        InvalidFile: the only record that fits cannot be read.
        UnknownName: neither a folder nor a variant that has been run.
    """
    path = Path(target)
    if path.is_dir():
        found, broken = read_runs(path)
        _refuse_unreadable(found, broken)
        if not found:
            raise UserError("no record in this folder", where=path, expected="record.json below it")
        return Side(target, make_rows(found), broken)
    store = RunStore(runs)
    if suite is not None and suite not in store.suites():
        raise UnknownName("name of runs", suite, store.suites(), where=runs)
    address = RunAddress.read(target, store)
    found, broken = _sorted_out(trusted(store.scan(address.suite if address else suite)))
    if address is None:
        rows = [row for row in make_rows(found) if target in (row.variant, row.label)]
        unread = [run for run in broken if run.folder.variant == target]
    else:
        rows = list(make_rows(run for run in found if address.names(run.folder)))
        unread = [run for run in broken if address.names(run.folder)]
    _refuse_unreadable(rows, unread)
    if not rows:
        start = f"{address.suite}/" if address else ""
        there = {f"{start}{run.record.plan.variant}" for run in found}
        raise UnknownName("run or variant", target, there, where=runs)
    if len(rows) > 1:
        raise UserError(
            f"{target} was run in {len(rows)} settings",
            where=runs,
            expected="one of them: " + "; ".join(row.label for row in rows),
            hint="name the run's folder instead",
        )
    return Side(target, tuple(rows), broken)


def read_runs(folder: Path) -> tuple[list[StoredRun], tuple[BrokenRun, ...]]:
    """Every run at any depth below a folder, and those whose record cannot be trusted."""
    return _sorted_out(trusted(_read_below(folder)))


def _refuse_unreadable(found: Sequence[object], broken: Sequence[BrokenRun]) -> None:
    """Where nothing else was found, the record that cannot be read is what is wrong."""
    if not found and broken:
        raise broken[0].error


def _read_below(folder: Path) -> Iterator[StoredRun | BrokenRun]:
    """Every record at any depth, except those of attempts under way."""
    for path in sorted(folder.rglob("record.json")):
        if path.parent.name == "attempt":
            continue
        try:
            yield StoredRun(RunFolder(path.parent), read_json(path, RunRecord))
        except HarnessError as error:
            yield BrokenRun(RunFolder(path.parent), error)


def _sorted_out(
    items: Iterable[StoredRun | BrokenRun],
) -> tuple[list[StoredRun], tuple[BrokenRun, ...]]:
    runs: list[StoredRun] = []
    broken: list[BrokenRun] = []
    for item in items:
        if isinstance(item, StoredRun):
            runs.append(item)
        else:
            broken.append(item)
    return runs, tuple(broken)
