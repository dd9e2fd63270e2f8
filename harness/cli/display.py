"""Display: what a person sees while plans run; plain lines where there is no terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape

from harness.cli.frame import TerminalFrame
from harness.cli.run_view import RunView, title_of
from harness.records.events import Event
from harness.runs.listener import Listener, RunResult
from harness.spec.plan import Plan

FRAMES_PER_SECOND = 4  # more would make a slow line stutter


class Display(Listener):
    """Shows the runs under way; each has a panel on a terminal, and plain lines elsewhere.

    The panels are gone when nothing runs, so that whatever is printed then stays in order.
    """

    def __init__(self, console: Console) -> None:
        """Show on ``console``."""
        self._console = console
        self._views: dict[str, RunView] = {}
        self._live: Live | None = None
        self._frame = TerminalFrame(console)

    def hear(self, plan: Plan, event: Event) -> None:
        """Show what has happened."""
        view = self._views.get(plan.run_name)
        if view is None:
            line = None if self._console.is_terminal else self._print
            view = self._views[plan.run_name] = RunView(title_of(plan), line)
            self._start()
        view.take(event)

    def result(self, result: RunResult) -> None:
        """Take the run's panel away."""
        self._views.pop(result.plan.run_name, None)
        self._stop()
        if self._views:
            self._start()

    def end(self) -> None:
        """Take all panels away."""
        self._views.clear()
        self._stop()

    def _start(self) -> None:
        if not self._console.is_terminal:
            return
        if self._live is None:
            self._live = Live(
                get_renderable=self.render,
                console=self._console,
                refresh_per_second=FRAMES_PER_SECOND,
                transient=True,
            )
            self._live.start()
        self._live.refresh()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
            self._frame.forget()

    def render(self) -> Group:
        """A panel for each run under way."""
        made = Group(*(view.render() for view in list(self._views.values())))
        self._frame.follow(made)
        return made

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


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
