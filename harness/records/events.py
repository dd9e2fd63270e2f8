"""Events: what a run says while it goes on, as typed lines of ``events.jsonl``."""

from __future__ import annotations

import errno
import math
import os
import time as clocks
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from harness.records.record import PhaseCost, PhaseName
from harness.records.validation import Count, ValidationPoint
from harness.spec.schema import Frozen

END_OF_9999 = 253_402_300_799


class _Said(Frozen):
    """What every event carries. Fields that a newer harness adds are passed over."""

    model_config = ConfigDict(extra="ignore")
    time: float = Field(ge=0, le=END_OF_9999, description="seconds since the epoch, for people")
    clock: float = Field(description="seconds of a clock that nobody sets, for durations")

    @classmethod
    def now(cls, **fields: Any) -> Self:
        """The event, said now on this machine."""
        return cls(time=clocks.time(), clock=clocks.monotonic(), **fields)


class RunStarted(_Said):
    """An executor has taken up the plan."""

    kind: Literal["run_start"] = "run_start"
    host: str = Field(description="the machine that carries it out")


class ProcessStarted(_Said):
    """The process that carries out the plan has begun."""

    kind: Literal["start"] = "start"
    pid: int


class PhaseStarted(_Said):
    """A phase begins."""

    kind: Literal["phase_start"] = "phase_start"
    phase: PhaseName


class PhaseEnded(_Said):
    """A phase has ended, or its result was taken over from an earlier attempt."""

    kind: Literal["phase_end"] = "phase_end"
    cost: PhaseCost


class Note(_Said):
    """What is being done now, in words."""

    kind: Literal["note"] = "note"
    text: str


class Advanced(_Said):
    """Progress inside the phase; in training, of optimizer steps."""

    kind: Literal["progress"] = "progress"
    done: Count
    total: Count
    numbers: dict[str, float] = Field(
        default_factory=dict, description="by name, such as loss or tokens_per_second"
    )


class ValidationStarted(_Said):
    """Training pauses while the loss on the validation split is taken."""

    kind: Literal["validation_start"] = "validation_start"
    step: Count = Field(description="optimizer steps done")


class Validated(_Said):
    """A validation has ended, and training goes on."""

    kind: Literal["validation"] = "validation"
    point: ValidationPoint


class Pulse(_Said):
    """The process lives."""

    kind: Literal["pulse"] = "pulse"
    numbers: dict[str, float] = Field(
        default_factory=dict, description="memory in use by name, such as resident_bytes"
    )


Event = Annotated[
    RunStarted
    | ProcessStarted
    | PhaseStarted
    | PhaseEnded
    | Note
    | Advanced
    | ValidationStarted
    | Validated
    | Pulse,
    Field(discriminator="kind"),
]
Hear = Callable[[Event], None]
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


class Progress(Protocol):
    """What a phase may say while it works. Call one of these at least every two seconds of work."""

    def note(self, text: str) -> None:
        """Say in words what is being done now."""

    def advance(self, done: int, total: int, **numbers: float) -> None:
        """Report ``done`` of ``total`` units, with numbers such as loss= or tokens_per_second=."""


class Silence:
    """A Progress that nobody listens to, for tests and library use."""

    def note(self, text: str) -> None:
        """Drop it."""

    def advance(self, done: int, total: int, **numbers: float) -> None:
        """Drop it."""


SILENCE = Silence()


class EventLog:
    """Appends events to a file. A Progress for whatever phase is under way."""

    def __init__(self, path: Path) -> None:
        """Open ``path`` for appending."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def emit(self, event: Event) -> None:
        """Append one event. Threads may do so at once.

        Raises:
            OSError: the disk is full.
        """
        line = (event.model_dump_json() + "\n").encode()
        if self._file.write(line) != len(line):  # one call, so that lines of threads do not mix
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)

    def note(self, text: str) -> None:
        """Say in words what is being done now."""
        printable = text.encode("utf-8", errors="replace").decode()  # a path may not be UTF-8
        self.emit(Note.now(text=printable))

    def advance(self, done: int, total: int, **numbers: float) -> None:
        """Report progress inside the phase; a number that is not finite is left out."""
        finite = {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
        self.emit(Advanced.now(done=done, total=total, numbers=finite))


class EventTail:
    """Follows a growing events file; every byte is read once.

    Lines that are damaged, or of a kind that is not known here, are passed over; ``skipped``
    counts them. A last line that is not whole yet is no such line.
    """

    def __init__(self, path: Path) -> None:
        """Follow ``path`` from its beginning; it need not exist yet."""
        self.skipped = 0
        self._path = path
        self._offset = 0
        self._rest = b""

    def new(self) -> Iterator[Event]:
        """Whole events written since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                event = _EVENT.validate_json(line)
            except ValidationError:
                self.skipped += 1
            else:
                yield event
