"""Display: what a person sees while a run is under way; plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table

from harness.records.record import PHASES

LINE_SECONDS = 1.9  # so that a pulse each second makes a line every two
LONGEST_PAUSE_SECONDS = 60.0
PACE_EVENTS = 32  # time left follows from the pace of so many events
TITLES = {
    "fetch": "fetch weights",
    "prepare": "prepare corpus",
    "load": "load model",
    "score_base": "score the base",
    "train": "train",
    "score": "score",
    "save": "save",
}


class Display:
    """Shows events of one run. Use as a context manager and call with each event."""

    def __init__(self, console: Console, title: str) -> None:
        """Show on ``console`` under ``title``."""
        self._console = console
        self._title = title
        self._phase = ""
        self._note = "starting"
        self._done, self._total = 0, 0
        self._numbers: dict[str, float] = {}
        self._memory: dict[str, float] = {}
        self._pace: deque[tuple[float, int]] = deque(maxlen=PACE_EVENTS)
        self._finished: list[tuple[str, float]] = []
        self._phase_started = self._note_started = self._last_line = time.monotonic()
        self._spinner = Spinner("dots")
        self._live = (
            Live(get_renderable=self._render, console=console, refresh_per_second=8, transient=True)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        else:
            self._line("starting")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        """Take in one event; kinds that are not known here are passed over."""
        take = getattr(self, f"_take_{event['kind']}", None)
        if take is not None:
            take(event)

    def _take_start(self, _: dict[str, Any]) -> None:
        self._finished.clear()

    def _take_phase_start(self, event: dict[str, Any]) -> None:
        self._phase, self._note = event["phase"], ""
        self._phase_started = time.monotonic()
        self._forget_progress()

    def _take_phase_end(self, event: dict[str, Any]) -> None:
        seconds = event["cost"]["seconds"]
        self._finished.append((event["phase"], seconds))
        self._line(f"{TITLES[event['phase']]} done in {seconds:.1f} s")
        self._phase = self._note = ""
        self._forget_progress()

    def _take_note(self, event: dict[str, Any]) -> None:
        self._note = event["text"]
        self._forget_progress()
        self._line(self._note)

    def _take_progress(self, event: dict[str, Any]) -> None:
        self._done, self._total = event["done"], event["total"]
        self._pace.append((time.monotonic(), self._done))
        known = ("time", "kind", "done", "total")
        self._numbers = {key: value for key, value in event.items() if key not in known}
        if self._is_quiet() or self._done == self._total:
            self._line(self._progress_text())

    def _take_pulse(self, event: dict[str, Any]) -> None:
        """The child lives: say so where nothing else has been said for a while."""
        self._memory = {key: event[key] for key in event if key.endswith("_bytes")}
        if self._is_quiet():
            spent = _duration(time.monotonic() - self._note_started)
            doing = self._note or TITLES.get(self._phase, "working")
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
        if self._live is None:
            self._last_line = time.monotonic()
            phase = f"[{self._phase}] " if self._phase else ""
            self._console.print(
                f"{self._title}: {phase}{text}", markup=False, highlight=False, soft_wrap=True
            )

    def _progress_text(self) -> str:
        parts = [f"{self._done}/{self._total}"]
        numbers = self._numbers | {
            name: value for name, value in self._memory.items() if name not in self._numbers
        }
        parts += [_number(name, value) for name, value in numbers.items()]
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

    def _render(self) -> Table:
        table = Table.grid(padding=(0, 1))
        table.add_row("", f"[bold]{escape(self._title)}[/]")
        done = dict(self._finished)
        for phase in PHASES:
            if phase in done:
                table.add_row("[green]✓[/]", f"{TITLES[phase]}  [dim]{_duration(done[phase])}[/]")
        doing = TITLES.get(self._phase, "")
        since = self._phase_started if self._phase else self._note_started
        spent = _duration(time.monotonic() - since)
        table.add_row(self._spinner, f"{doing}  [dim]{escape(self._note)}  {spent}[/]")
        if self._total:
            bar = ProgressBar(total=self._total, completed=self._done, width=40)
            table.add_row("", bar)
            table.add_row("", escape(self._progress_text()))
        elif self._memory:
            held = "  ".join(_number(name, value) for name, value in self._memory.items())
            table.add_row("", f"[dim]{held}[/]")
        return table


class Notes:
    """A Progress that shows the latest note beside a spinner; a line each without a terminal."""

    def __init__(self, console: Console) -> None:
        """Show on ``console``."""
        self._console = console
        self._status = console.status("starting") if console.is_terminal else None

    def __enter__(self) -> Notes:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def note(self, text: str) -> None:
        """Show ``text``."""
        if self._status is not None:
            self._status.update(escape(text))
        else:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def advance(self, done: int, total: int, **_numbers: float) -> None:
        """Show how far it is."""
        if self._status is not None:
            self._status.update(f"{done:,} of {total:,}")


def _number(name: str, value: float) -> str:
    """``name`` ends in its unit, as everywhere in the harness."""
    if name.endswith("_bytes"):
        return f"{name.removesuffix('_bytes').replace('_', ' ')} {value / 2**30:.2f} GiB"
    if name == "tokens_per_second":
        return f"{value:,.0f} tokens/s"
    return f"{name.replace('_', ' ')} {value:.4g}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
