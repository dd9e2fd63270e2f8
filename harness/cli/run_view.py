"""Run view: one run under way, as a panel, as a line of a table, or in plain lines."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from rich.console import Group
from rich.spinner import Spinner
from rich.text import Text

from harness import numbers
from harness.cli.frame import bar
from harness.records.events import (
    Advanced,
    Event,
    Note,
    PhaseEnded,
    PhaseStarted,
    ProcessStarted,
    Pulse,
    Validated,
    ValidationStarted,
)
from harness.records.record import COSTED, PhaseName
from harness.spec.plan import Plan

LINE_SECONDS = 1.9  # so that a pulse each second makes a line every two
LONGEST_PAUSE_SECONDS = 60.0
PACE_EVENTS = 32  # time left follows from the pace of so many events
TITLES: dict[PhaseName, str] = {
    "fetch": "fetch weights",
    "prepare": "prepare corpus",
    "load": "load model",
    "score_base": "score the base",
    "train": "train",
    "validate": "validate",
    "score": "score",
    "save": "save",
}


def title_of(plan: Plan) -> str:
    """What a run is called on the terminal."""
    return f"{plan.variant} on {plan.suite}, seed {plan.seed}"


class RunView:
    """One run under way: its phases, what it does now, how far that is and how long it will take.

    The time left is reckoned here: the pace of rich.progress forgets what is older than a fixed
    window, so that it has none for steps that take longer, nor after the first one.
    """

    def __init__(self, title: str, line: Callable[[str], None] | None = None) -> None:
        """``line`` prints a plain line; without it there is a terminal that renders this."""
        self._title = title
        self._print = line
        self._phase: PhaseName | None = None
        self._note = "starting"
        self._done, self._total = 0, 0
        self._numbers: dict[str, float] = {}
        self._memory: dict[str, float] = {}
        self._validated: dict[str, float] = {}
        self._validating = False
        self._pace: deque[tuple[float, int]] = deque(maxlen=PACE_EVENTS)
        self._finished: dict[PhaseName, float] = {}
        self._phase_started = self._note_started = self._last_line = time.monotonic()
        self._spinner = Spinner("dots")
        self._line("starting")

    def take(self, event: Event) -> None:
        """Take in one event; kinds that are not shown are passed over."""
        match event:
            case ProcessStarted():
                self._finished.clear()
                self._validated, self._validating = {}, False
            case PhaseStarted():
                self._phase, self._note = event.phase, ""
                self._phase_started = time.monotonic()
                self._forget_progress()
            case PhaseEnded():
                self._take_phase_end(event)
            case Note():
                self._note = event.text
                self._forget_progress()
                self._line(self._note)
            case Advanced():
                self._take_progress(event)
            case ValidationStarted():
                self._validating = True
            case Validated():
                self._take_validation(event)
            case Pulse():
                self._take_pulse(event)

    def _take_phase_end(self, event: PhaseEnded) -> None:
        name, seconds = event.cost.name, event.cost.seconds
        self._finished[name] = seconds
        self._line(f"{TITLES[name]} done in {seconds:.1f} s")
        self._phase, self._note = None, ""
        self._validated = {}
        self._forget_progress()

    def _take_progress(self, event: Advanced) -> None:
        self._done, self._total = event.done, event.total
        self._pace.append((time.monotonic(), self._done))
        self._numbers = event.numbers
        if "loss" in event.numbers:
            self._note = ""  # steps are being trained: what came before them is done
        if self._is_quiet() or self._done == self._total:
            self._line(self._progress_text())

    def _take_validation(self, event: Validated) -> None:
        self._validating = False
        self._validated = {"validation_loss": event.point.loss}
        if self._is_quiet():
            self._line(f"validation loss {event.point.loss:.4g} after step {event.point.step}")

    def _take_pulse(self, event: Pulse) -> None:
        """The child lives: say so where nothing else has been said for a while."""
        self._memory = {
            key: value for key, value in event.numbers.items() if key.endswith("_bytes")
        }
        if self._is_quiet():
            spent = _duration(time.monotonic() - self._note_started)
            doing = self._note or (TITLES[self._phase] if self._phase else "working")
            self._line(self._progress_text() if self._total else f"{doing}, {spent} so far")

    def _is_quiet(self) -> bool:
        """Whether a plain line is due: after two seconds at first, then ever more seldom."""
        now = time.monotonic()
        pause = min(max(LINE_SECONDS, (now - self._note_started) / 15), LONGEST_PAUSE_SECONDS)
        return now - self._last_line >= pause

    def _forget_progress(self) -> None:
        self._done, self._total, self._numbers = 0, 0, {}
        self._note_started = time.monotonic()
        self._pace.clear()
        self._pace.append((self._note_started, 0))

    def _line(self, text: str) -> None:
        if self._print is not None:
            self._last_line = time.monotonic()
            phase = f"[{self._phase}] " if self._phase else ""
            self._print(f"{self._title}: {phase}{text}")

    def _progress_text(self) -> str:
        parts = [f"{self._done}/{self._total}"]
        numbers = (
            self._numbers
            | self._validated
            | {name: value for name, value in self._memory.items() if name not in self._numbers}
        )
        parts += [_number(name, value) for name, value in numbers.items()]
        if self._validating:
            parts.append("validating")
        left = self._seconds_left()
        if left is not None:
            parts.append(f"{_duration(left)} left")
        return "  ".join(parts)

    def _seconds_left(self) -> float | None:
        """Time left for what is under way, from its pace of late."""
        (since, done) = self._pace[0] if self._pace else (0.0, 0)
        if not done < self._done < self._total:
            return None
        return (time.monotonic() - since) / (self._done - done) * (self._total - self._done)

    @property
    def doing(self) -> str:
        """Its phase, or between two of them what it does."""
        return TITLES[self._phase] if self._phase else self._note or "between phases"

    @property
    def progress(self) -> tuple[int, int]:
        """How many of how many units are done; of 0 where that is not known."""
        return self._done, self._total

    def cells(self) -> tuple[str, ...]:
        """The run in one line: what it is, what it does, and how far that is."""
        between = "" if self._finished else "starting"
        doing = TITLES[self._phase] if self._phase else between
        told = self._progress_text() if self._total else self._note
        return self._title, doing, told

    def render(self) -> Group:
        """The run's panel: lines without blanks at their end, which a resize would break."""
        lines = [Text(f"  {self._title}", style="bold")]
        for phase in (name for name in COSTED if name in self._finished):
            took = (_duration(self._finished[phase]), "dim")
            lines.append(Text.assemble(("✓ ", "green"), TITLES[phase], "  ", took))
        since = self._phase_started if self._phase else self._note_started
        told = "  ".join(filter(None, (self._note, _duration(time.monotonic() - since))))
        doing = f"{TITLES[self._phase]}  " if self._phase else ""
        lines.append(Text.assemble(self._spin(), " ", doing, (told, "dim")))
        if self._total:
            share = bar(self._done / self._total)
            lines.append(Text.assemble("  ", share, no_wrap=True, overflow="crop"))
            lines.append(Text(f"  {self._progress_text()}"))
        elif self._memory:
            held = "  ".join(_number(name, value) for name, value in self._memory.items())
            lines.append(Text(f"  {held}", style="dim"))
        return Group(*lines)

    def _spin(self) -> Text:
        found = self._spinner.render(time.monotonic())
        return found if isinstance(found, Text) else Text(str(found))


def _number(name: str, value: float) -> str:
    """``name`` ends in its unit, as everywhere in the harness."""
    if name.endswith("_bytes"):
        return f"{name.removesuffix('_bytes').replace('_', ' ')} {numbers.size(value)}"
    if name == "tokens_per_second":
        return f"{value:,.0f} tokens/s"
    return f"{name.replace('_', ' ')} {value:.4g}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
