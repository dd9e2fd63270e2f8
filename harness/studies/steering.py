"""Steering: the decisions that are taken while a study runs, appended to a small log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from harness.errors import InvalidFile, StorageError
from harness.spec.schema import Frozen

Kind = Literal["drop", "add", "more_seeds", "give_up"]
ONE_COMMAND = 0.001  # seconds; older versions gave what one command decides times of its own


class Decision(Frozen):
    """One decision: when, what, and about which arm, how many seeds or which run.

    Persons take all kinds but the last: a driver gives up a run that was stopped too often.
    """

    time: str
    kind: Kind
    value: str

    def goes_with(self, other: Decision) -> bool:
        """Whether both add a variant in one command, so that nobody looked in between."""
        if {self.kind, other.kind} != {"add"}:
            return False
        try:
            times = [datetime.fromisoformat(one.time) for one in (self, other)]
            return abs((times[1] - times[0]).total_seconds()) < ONE_COMMAND
        except (ValueError, TypeError):  # somebody else wrote it: no time, or one without a zone
            return False


@dataclass(frozen=True)
class Steering:
    """All decisions so far."""

    decisions: tuple[Decision, ...] = ()

    @property
    def dropped(self) -> frozenset[str]:
        """Arms that get no more runs."""
        return frozenset(self._values("drop"))

    @property
    def added(self) -> tuple[str, ...]:
        """Variants that were added."""
        return tuple(self._values("add"))

    @property
    def given_up(self) -> frozenset[str]:
        """Runs that are not tried again, by their folders below the store."""
        return frozenset(self._values("give_up"))

    def _values(self, kind: str) -> Iterator[str]:
        return (item.value for item in self.decisions if item.kind == kind)


def read_steering(path: Path) -> Steering:
    """Decisions in the order in which they were taken; none where there is no file.

    Those of other machines stand in the file where they arrived, so the order is that of times.

    Raises:
        InvalidFile: a line is no decision.
    """
    if not path.is_file():
        return Steering()
    decisions = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line:
            continue
        try:
            decisions.append(Decision.model_validate_json(line))
        except ValidationError as error:
            raise InvalidFile(
                f"line {number} is no decision: {error.errors()[0]['msg']}",
                where=path,
                hint="remove the line, or take the decision again",
            ) from None
    return Steering(tuple(sorted(decisions, key=lambda one: one.time)))


def decide(path: Path, *taken: tuple[Kind, str]) -> None:
    """Append what one command decides, (kind, value) each, with one time.

    That time is later than those of all decisions in the file, also where the clock of another
    machine is ahead of this one's: a decision may use less of the error than those it follows.

    Raises:
        InvalidFile: a line of the file is no decision.
        StorageError: the file cannot be written.
    """
    known = [one.time for one in read_steering(path).decisions]
    earliest = _after(max(known)) if known else ""
    now = max(_stamp(datetime.now(UTC)), earliest)
    _append(path, [Decision(time=now, kind=kind, value=value) for kind, value in taken])


def _stamp(time: datetime) -> str:
    return time.isoformat(timespec="microseconds")


def _after(time: str) -> str:
    """When the command after one in the log is; at any time where somebody else wrote that one."""
    try:
        return _stamp(datetime.fromisoformat(time).astimezone(UTC) + timedelta(seconds=ONE_COMMAND))
    except ValueError:
        return ""


def take_over(path: Path, lines: Iterable[str], where: str) -> None:
    """Append decisions of other machines, as JSON from ``where``, that are not there yet.

    Raises:
        InvalidFile: one of them is no decision; none is appended then.
        StorageError: the file cannot be written.
    """
    try:
        found = [Decision.model_validate_json(line) for line in sorted(lines)]
    except ValidationError as error:
        raise InvalidFile(
            f"there is what is no decision: {error.errors()[0]['msg']}",
            where=where,
            hint="remove it there, or use another store",
        ) from None
    add_decisions(path, found)


def add_decisions(path: Path, decisions: Sequence[Decision]) -> int:
    """Append those of ``decisions`` that are not there yet, in their order; returns how many.

    Raises:
        InvalidFile: a line of the file is no decision.
        StorageError: the file cannot be written.
    """
    known = set(read_steering(path).decisions)
    new = [one for one in decisions if one not in known]
    _append(path, new)
    return len(new)


def _append(path: Path, decisions: Sequence[Decision]) -> None:
    lines = "".join(one.model_dump_json() + "\n" for one in decisions)
    if not lines:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            file.write(lines.encode())  # one call, so that lines of two terminals do not mix
    except OSError as error:
        raise StorageError(f"cannot write: {error.strerror}", where=path) from None
