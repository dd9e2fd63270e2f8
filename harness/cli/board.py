"""Board: many plans at a time: how far all of them are, those under way, and what they found."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness import numbers
from harness.cli.frame import TerminalFrame
from harness.cli.run_view import RunView, title_of
from harness.records.events import Event, RunStarted
from harness.records.record import RunRecord
from harness.runs.listener import Listener, RunResult
from harness.spec.plan import Plan

FRAMES = 4  # a second
FEW = 2  # runs under way that are shown with all their phases
ROOM = 8  # lines of the terminal that are left for what was printed before
LINE_SECONDS = 10.0  # between plain lines about all runs
SHORTEST = 0.1  # of a run's expected time, what one that takes longer still needs


class Board(Listener):
    """Shows all runs of a batch; what has finished leaves a line that stays.

    On a terminal the runs under way are drawn below, four times a second at most. Elsewhere there
    are plain lines: of each run where few are under way, of all together otherwise.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        """Show on ``console``."""
        self._console = console
        self._clock = clock
        self._tally = Tally(clock)
        self._views: dict[str, RunView] = {}
        self._hosts: dict[str, str] = {}
        self._lines: list[Text] = []
        self._said = clock()
        self._stopping = False
        self._live: Live | None = None
        self._frame = TerminalFrame(console)

    def begin(self, plans: Sequence[Plan]) -> None:
        """Draw the board."""
        self._tally.begin(len(plans))
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self.render,
                console=self._console,
                refresh_per_second=FRAMES,
                transient=True,
            )
            self._live.start(refresh=True)

    def more(self, plans: Sequence[Plan]) -> None:
        """Count further runs."""
        self._tally.more(len(plans))

    def hear(self, plan: Plan, event: Event) -> None:
        """Take in what has happened."""
        name = plan.run_name
        if isinstance(event, RunStarted):
            self._hosts[name] = event.host
        else:  # in a cluster nothing else is heard, so that nobody knows when a run begins
            self._tally.start(name)
        if name not in self._views:
            line = None if self._console.is_terminal else self._say_of_one
            self._views[name] = RunView(title_of(plan), line)
        self._views[name].take(event)
        if self._live is None and self._is_due():
            self._say_of_all()

    def result(self, result: RunResult) -> None:
        """Leave a line that stays."""
        name = result.plan.run_name
        self._views.pop(name, None)
        host = self._hosts.pop(name, "")
        self._tally.finish(name, result.record)
        line = result_line(result, host, again=self._tally.is_older(result.record))
        if self._live is None:
            line.append(f"  [{self._tally.text()}]", style="dim")
        self._lines.append(line)
        if self._live is None or self._is_due(1 / FRAMES):
            self._print_lines()

    def stopping(self) -> None:
        """Say so until the runs under way have ended."""
        self._stopping = True

    def end(self) -> None:
        """Take the board away; the lines stay."""
        self._print_lines()
        self._views.clear()
        if self._live is not None:
            self._live.stop()
            self._live = None
            self._frame.forget()

    def _is_due(self, pause: float = LINE_SECONDS) -> bool:
        return self._clock() - self._said >= pause

    def _print_lines(self) -> None:
        lines, self._lines, self._said = self._lines, [], self._clock()
        if lines:
            self._console.print(Text("\n").join(lines), highlight=False, soft_wrap=True)

    def _say_of_one(self, text: str) -> None:
        if len(self._views) <= FEW:
            self._said = self._clock()
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _say_of_all(self) -> None:
        self._said = self._clock()
        text = f"{self._tally.text()}: {doing(list(self._views.values()))}"
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def render(self) -> Group:
        """What is drawn; where the terminal has become narrower, the frame before goes wholly."""
        made = self._made()
        self._frame.follow(made)
        return made

    def _made(self) -> Group:
        """Every run under way, and how far all are."""
        views = list(self._views.values())
        head = Text(self._tally.text(), style="bold")
        if self._stopping:
            head.append("\nstopping: runs under way write their records; Ctrl-C again ends them")
        if len(views) <= FEW:
            return Group(*(view.render() for view in views), head)
        shown = views[: max(self._console.height - ROOM, 1)]
        table = Table.grid(padding=(0, 2))
        for view in shown:
            table.add_row(*(Text(cell, no_wrap=True) for cell in view.cells()))
        more = [Text(f"and {len(views) - len(shown)} more")] if len(shown) < len(views) else []
        return Group(table, *more, head)


def doing(views: Sequence[RunView]) -> str:
    """What runs under way do, as "2 train (12/60), 1 score"; of equals the one least far."""
    alike: dict[str, list[tuple[int, int]]] = {}
    for view in views:
        alike.setdefault(view.doing, []).append(view.progress)
    parts = []
    for what, found in alike.items():
        known = [(done / total, f" ({done}/{total})") for done, total in found if total]
        parts.append(f"{len(found)} {what}{min(known)[1] if known else ''}")
    return ", ".join(parts)


class Tally:
    """Counts the runs of a batch, and reckons how long the rest will take.

    Of runs elsewhere only their ends are heard: when they began follows from the seconds that
    their records hold, and how many run at once from those that have ended.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` gives seconds."""
        self._clock = clock
        self._all = self._done = self._bad = self._at_once = 0
        self._began = clock()
        self._day = datetime.now(UTC)
        self._started: dict[str, float] = {}
        self._took: list[float] = []
        self._elsewhere: list[tuple[float, float]] = []  # when they began and ended

    def begin(self, count: int) -> None:
        """A batch of so many runs begins."""
        self._all, self._began, self._day = count, self._clock(), datetime.now(UTC)

    def more(self, count: int) -> None:
        """So many runs have come to the batch."""
        self._all += count

    def start(self, name: str) -> None:
        """A run begins, or is heard of again."""
        if name in self._started:
            return
        self._started[name] = self._clock()
        self._at_once = max(self._at_once, len(self._started))

    def finish(self, name: str, record: RunRecord | None) -> None:
        """A run has ended, or cannot be run; what was used again says nothing about time."""
        began = self._started.pop(name, None)
        self._done += 1
        self._bad += record is None or record.status != "ok"
        whole = record is not None and record.status != "interrupted"
        if not whole or self.is_older(record):
            return
        if began is None and record is not None:
            began = self._clock() - record.seconds
            self._elsewhere.append((began, self._clock()))
        if began is not None:
            self._took.append(self._clock() - began)

    def is_older(self, record: RunRecord | None) -> bool:
        """Whether the record was there before this batch."""
        if record is None:
            return False
        return datetime.fromisoformat(record.started_at) < self._day.replace(microsecond=0)

    def left(self) -> float | None:
        """Seconds until all have ended, by the mean of those that have; None before the first."""
        if not self._took:
            return None
        mean = sum(self._took) / len(self._took)
        now = self._clock()
        under_way = [max(mean - (now - at), SHORTEST * mean) for at in self._started.values()]
        waiting = self._all - self._done - len(self._started)
        if self._elsewhere:
            each = self._between_ends()
            since = now - self._elsewhere[-1][1]
            return max(waiting * each - since, SHORTEST * each)
        return (sum(under_way) + waiting * mean) / max(self._at_once, 1)

    def _between_ends(self) -> float:
        """Seconds after which the next run elsewhere ends, by those that have ended."""
        first = min(began for began, _ in self._elsewhere)
        return (self._elsewhere[-1][1] - first) / len(self._elsewhere)

    def text(self) -> str:
        """All of it in a line."""
        parts = [f"{self._done:,} of {self._all:,} done"]
        if self._bad:
            parts.append(f"{self._bad:,} not well")
        if self._started:
            parts.append(f"{len(self._started):,} under way")
        parts.append(f"{numbers.duration(self._clock() - self._began)} so far")
        left = self.left()
        if left is not None and self._done < self._all:
            parts.append(f"about {numbers.duration(left)} left")
        return ", ".join(parts)


def result_line(result: RunResult, host: str, *, again: bool) -> Text:
    """What stays of a run: how it ended, its score, its time and where it ran."""
    title, record = title_of(result.plan), result.record
    if record is None:
        return Text(f"✗ {title}: cannot be run", style="red")
    if record.status != "ok":
        style = "yellow" if record.status == "interrupted" else "red"
        return Text(f"✗ {title}: {record.status} after {numbers.duration(record.seconds)}", style)
    parts = [score_text(record), numbers.duration(record.seconds)]
    parts.append("run before" if again else host)
    line = Text("✓ ", style="green")
    return line.append(f"{title}: {', '.join(filter(None, parts))}", style="default")


def score_text(record: RunRecord) -> str:
    """The score that a reader looks for first: perplexity, or the first that heads a table."""
    after = [score for score in record.scores if score.stage == "after"]
    named = [score for score in after if score.metric == "perplexity"]
    headline = [score for score in after if score.headline]
    found = next(iter((*named, *headline, *after)), None)
    if found is None:
        return ""
    split = " on validation" if found.task == "validation" else ""
    return f"{found.metric} {numbers.number(found.value)}{split}"
