"""The board shows all runs at once, and what has finished leaves a line that stays."""

from __future__ import annotations

import io
import re
import sys
from contextlib import closing

import pytest
from rich.console import Console
from rich.text import Text

from harness.cli.app import complain
from harness.cli.board import FRAMES, Board, Tally
from harness.cli.run_view import RunView
from harness.cli.terminal import Door
from harness.records.events import Advanced, Note, PhaseEnded, PhaseStarted, RunStarted
from harness.records.record import PhaseCost, Score
from harness.runs.listener import RunResult
from harness.spec.plan import Plan
from tests.cli.pseudo_terminal import PseudoTerminal
from tests.planned import planned
from tests.store_records import record_of

PLANS = [planned("lora_bf16", seed=seed) for seed in range(5)]
FUTURE = "2999-01-01T00:00:00+00:00"
SCORE = Score(
    task="held_out", metric="perplexity", stage="after", value=6.25, standard_error=None, n=4,
    unit="per token", direction="lower", transform="exp", headline=True,
)  # fmt: skip


class Clock:
    """Time that passes when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def board(*, terminal: bool, clock: Clock) -> tuple[Board, Console]:
    console = Console(
        file=io.StringIO(), force_terminal=terminal, width=120, height=20, color_system=None
    )
    return Board(console, clock), console


def ended(plan: Plan, **fields: object) -> RunResult:
    given = {"scores": (SCORE,), "seconds": 30.0, "started_at": FUTURE} | fields
    return RunResult(plan, record_of(plan, **given))


def written(console: Console) -> str:
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def drawn(shown: Board) -> str:
    """What a terminal would be sent now, without what rich's own thread draws meanwhile."""
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    console.print(shown.render())
    return written(console)


def train(shown: Board, plan: Plan, step: int) -> None:
    shown.hear(plan, RunStarted.now(host="node7, GPU 3"))
    shown.hear(plan, PhaseStarted.now(phase="train"))
    shown.hear(plan, Advanced.now(done=step, total=60, numbers={"loss": 1.5}))


def test_without_a_terminal_a_finished_run_is_a_line_with_what_it_found() -> None:
    clock = Clock()
    shown, console = board(terminal=False, clock=clock)
    shown.begin(PLANS)
    train(shown, PLANS[0], 3)
    clock.now += 30
    shown.result(ended(PLANS[0]))
    last = written(console).splitlines()[-1]
    assert "✓ lora_bf16 on quick, seed 0: perplexity 6.250, 30.0 s, node7, GPU 3" in last
    assert "1 of 5 done, 30.0 s so far, about 2 min 00 s left" in last


def test_many_runs_at_once_do_not_fill_a_file() -> None:
    clock = Clock()
    shown, console = board(terminal=False, clock=clock)
    shown.begin(PLANS)
    for plan in PLANS:
        train(shown, plan, 1)
    before = len(written(console).splitlines())
    for step in range(2, 60):
        clock.now += 1
        for plan in PLANS:
            shown.hear(plan, Advanced.now(done=step, total=60, numbers={"loss": 1.0}))
    lines = written(console).splitlines()[before:]
    assert len(lines) == 5, "one line in ten seconds"
    assert all("0 of 5 done, 5 under way" in line for line in lines)
    assert re.search(r": 5 train \(\d+/60\)$", lines[0]), "and what they do"


def test_a_terminal_shows_every_run_under_way_and_all_together() -> None:
    shown, console = board(terminal=True, clock=Clock())
    shown.begin(PLANS)
    for plan in PLANS[:4]:
        train(shown, plan, 12)
    shown.result(ended(PLANS[0], status="diverged", scores=()))
    text = drawn(shown)
    assert text.count("12/60  loss 1.5") == 3
    for words in ("seed 1", "seed 3", "train", "1 of 5 done, 1 not well, 3 under way"):
        assert words in text, words
    shown.stopping()
    assert "Ctrl-C again ends them" in drawn(shown)
    shown.end()
    assert "✗ lora_bf16 on quick, seed 0: diverged after 30.0 s" in written(console)


def test_a_run_between_two_phases_is_not_starting() -> None:
    """Runs that train as one wait for each other's scores."""
    view = RunView("lora_bf16", None)
    assert view.cells()[1] == "starting"
    view.take(PhaseStarted.now(phase="train"))
    view.take(PhaseEnded.now(cost=PhaseCost(name="train", seconds=3.0)))
    view.take(Note.now(text="waiting"))
    assert view.cells() == ("lora_bf16", "", "waiting")


def test_more_runs_than_lines_are_counted() -> None:
    plans = [planned("lora_bf16", seed=seed) for seed in range(40)]
    shown, _ = board(terminal=True, clock=Clock())
    shown.begin(plans)
    for plan in plans:
        train(shown, plan, 1)
    text = drawn(shown)
    shown.end()
    assert len(text.splitlines()) < 20
    assert "and 28 more" in text


def test_a_burst_of_results_is_drawn_four_times_a_second_and_nothing_is_lost() -> None:
    clock = Clock()
    plans = [planned("lora_bf16", seed=seed) for seed in range(40)]
    shown, console = board(terminal=True, clock=clock)
    shown.begin(plans)
    printed = 0
    original = console.print

    def count(*given: object, **more: object) -> None:
        nonlocal printed
        printed += isinstance(given[0], Text)  # and no frame, which rich's own thread draws
        original(*given, **more)  # type: ignore[arg-type]

    console.print = count  # type: ignore[method-assign]
    for plan in plans:
        shown.hear(plan, Note.now(text="already run"))
        shown.result(ended(plan, started_at="2020-01-01T00:00:00+00:00"))
        clock.now += 0.05
    shown.end()
    assert 1 < printed <= 40 * 0.05 * FRAMES + 1
    assert written(console).count("run before") == 40


def test_time_left_follows_from_runs_that_took_time() -> None:
    clock = Clock()
    tally = Tally(clock)
    tally.begin(10)
    tally.start("a")
    tally.finish("a", record_of(PLANS[0], started_at="2020-01-01T00:00:00+00:00"))
    assert tally.left() is None, "a record that was there says nothing about time"
    for name in "bc":
        tally.start(name)
    clock.now += 20
    for name in "bc":
        tally.finish(name, record_of(PLANS[0], started_at=FUTURE))
    assert tally.left() == 7 * 20 / 2
    tally.start("d")
    clock.now += 15
    assert tally.left() == (6 * 20 + 5) / 2
    tally.more(4)
    assert tally.left() == (10 * 20 + 5) / 2
    assert tally.text().startswith("3 of 14 done")


def test_a_frame_of_the_board_that_a_narrower_terminal_broke_is_erased_whole() -> None:
    shown, console = board(terminal=True, clock=Clock())
    shown.render()
    console.width = 10
    shown.render()
    assert "\x1b[1A" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("at_once", "left"), [(1, "8 min 00 s"), (2, "4 min 00 s")])
def test_time_left_in_a_cluster_follows_from_the_ends_of_runs(at_once: int, left: str) -> None:
    """All runs are sent at once, and nothing is heard of them but their records."""
    clock, plans = Clock(), [planned("lora_bf16", seed=seed) for seed in range(10)]
    shown, console = board(terminal=False, clock=clock)
    shown.begin(plans)
    for plan in plans:
        shown.hear(plan, RunStarted.now(host="a Ray cluster"))
    clock.now += 30  # in the queue of the cluster
    for place in range(2):
        clock.now += 60 if place % at_once == 0 else 0
        shown.result(ended(plans[place], seconds=60.0))
    assert f"about {left} left" in written(console).splitlines()[-1]
    assert "under way" not in written(console), "nobody knows how many are"


def test_between_two_ends_in_a_cluster_time_goes_on() -> None:
    clock = Clock()
    tally = Tally(clock)
    tally.begin(3)
    clock.now += 60
    tally.finish("a", record_of(PLANS[0], started_at=FUTURE, seconds=60.0))
    assert tally.left() == 120
    clock.now += 20
    assert tally.left() == 100
    clock.now += 9_999
    assert tally.left() == 6, "a run that takes longer still needs a while"


def test_an_interrupted_run_says_nothing_of_the_time_left() -> None:
    clock = Clock()
    tally = Tally(clock)
    tally.begin(3)
    tally.start("a")
    clock.now += 5
    tally.finish("a", record_of(PLANS[0], status="interrupted", started_at=FUTURE))
    assert tally.left() is None
    assert "1 not well" in tally.text()


def test_a_problem_is_printed_through_the_door_of_the_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Written beside it, rich would draw over it and leave lines of the frame behind."""
    doors = {
        name: Door(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
        for name in ("out", "err")
    }
    for name, door in doors.items():
        monkeypatch.setitem(complain.__globals__, name, door)
    shown = Board(doors["out"])
    shown.begin(PLANS)
    complain("something is wrong")
    shown.end()
    complain("afterwards")
    assert "something is wrong" in written(doors["out"])
    assert written(doors["err"]) == "afterwards\n"


ON_A_TERMINAL = """
from harness.cli.app import out
from harness.cli.board import Board
from harness.records.events import Advanced, PhaseEnded, PhaseStarted, Pulse
from harness.records.record import PhaseCost
from tests.planned import planned

plans = [planned("lora_bf16", seed=seed) for seed in range(2)]
numbers = {"loss": 1.5, "tokens_per_second": 1234.5}
shown = Board(out)
shown.begin(plans)
for event in (
    PhaseStarted.now(phase="load"),
    Pulse.now(numbers={"resident_bytes": 3 << 30}),
    PhaseEnded.now(cost=PhaseCost(name="load", seconds=2.0)),
    PhaseStarted.now(phase="train"),
    Advanced.now(done=12, total=60, numbers=numbers),
):
    shown.hear(plans[0], event)
    input()  # until a person has seen it
shown.end()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
def test_a_person_sees_what_a_run_does_for_as_long_as_it_does_it() -> None:
    """Each event lasts until a frame with it was drawn: how fast that is, nobody promises."""
    told = (
        "load model",
        "resident 3.00 GiB",
        "✓ load model  2.0 s",
        "train",
        "12/60  loss 1.5  1,234 tokens/s  resident 3.00 GiB",
    )
    with closing(PseudoTerminal("-c", ON_A_TERMINAL)) as shows:
        for words in told:
            shows.wait_for(words)
            shows.press_enter()
        assert shows.end() == 0, shows.said


def test_a_board_is_there_as_soon_as_the_batch_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs may end before rich's own thread draws a first frame."""
    monkeypatch.setattr("harness.cli.board.FRAMES", 1e-6)
    shown, console = board(terminal=True, clock=Clock())
    shown.begin(PLANS)
    drawn_at_once = written(console)
    shown.end()
    assert "0 of 5 done" in drawn_at_once
