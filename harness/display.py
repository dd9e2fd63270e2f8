"""Display: what a person sees while a run is under way; plain lines where there is no terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table

from harness.record import PHASES

LINE_SECONDS = 2.0
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
        self._finished: list[tuple[str, float]] = []
        self._started = self._phase_started = time.monotonic()
        self._last_line = 0.0
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
            self._console.print(f"{self._title}: starting", markup=False, highlight=False)
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
        """Take in one event of the child."""
        kind = event["kind"]
        if kind == "phase_start":
            self._phase, self._note = event["phase"], ""
            self._phase_started = time.monotonic()
            self._forget_progress()
        elif kind == "phase_end":
            self._finished.append((event["phase"], event["cost"]["seconds"]))
            self._line(f"{TITLES[event['phase']]} done in {event['cost']['seconds']:.1f} s")
            self._phase = ""
        elif kind == "note":
            self._note = event["text"]
            self._forget_progress()
            self._line(self._note)
        elif kind == "progress":
            self._done, self._total = event["done"], event["total"]
            known = ("time", "kind", "done", "total")
            self._numbers = {key: value for key, value in event.items() if key not in known}
            now = time.monotonic()
            if now - self._last_line >= LINE_SECONDS or self._done == self._total:
                self._line(self._progress_text())

    def _forget_progress(self) -> None:
        self._done, self._total, self._numbers = 0, 0, {}

    def _line(self, text: str) -> None:
        if self._live is None:
            self._last_line = time.monotonic()
            phase = f"[{self._phase}] " if self._phase else ""
            self._console.print(
                f"{self._title}: {phase}{text}", markup=False, highlight=False, soft_wrap=True
            )

    def _progress_text(self) -> str:
        parts = [f"{self._done}/{self._total}"]
        parts += [_number(name, value) for name, value in self._numbers.items()]
        left = self._seconds_left()
        if left is not None:
            parts.append(f"{_duration(left)} left")
        return "  ".join(parts)

    def _seconds_left(self) -> float | None:
        """Time left in this phase, from its pace so far."""
        if not 0 < self._done < self._total:
            return None
        spent = time.monotonic() - self._phase_started
        return spent / self._done * (self._total - self._done)

    def _render(self) -> Table:
        table = Table.grid(padding=(0, 1))
        table.add_row("", f"[bold]{escape(self._title)}[/]")
        done = dict(self._finished)
        for phase in PHASES:
            if phase in done:
                table.add_row("[green]✓[/]", f"{TITLES[phase]}  [dim]{_duration(done[phase])}[/]")
        doing = TITLES.get(self._phase, "")
        spent = _duration(time.monotonic() - self._phase_started)
        table.add_row(self._spinner, f"{doing}  [dim]{escape(self._note)}  {spent}[/]")
        if self._total:
            bar = ProgressBar(total=self._total, completed=self._done, width=40)
            table.add_row("", bar)
            table.add_row("", escape(self._progress_text()))
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
