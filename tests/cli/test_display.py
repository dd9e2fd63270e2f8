"""A person sees phase, step, numbers and time left; a file gets plain lines."""

from __future__ import annotations

import io

import pytest
from rich.console import Console, Group

from harness.cli.display import Display, Notes
from harness.cli.frame import TerminalFrame, broken_lines
from harness.cli.run_view import RunView, title_of
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
from harness.records.record import PHASES, PhaseCost
from harness.records.validation import ValidationPoint
from harness.runs.listener import RunResult
from tests.planned import planned
from tests.store_records import record_of

PLAN = planned("qlora_nf4")
TITLE = "qlora_nf4 on quick, seed 0"
NUMBERS = {"loss": 1.23456, "tokens_per_second": 1234.5, "resident_bytes": 3 << 30}
EVENTS = (
    Note.now(text="loading libraries"),
    PhaseStarted.now(phase="train"),
    Note.now(text="attaching [the] adapter"),
    Advanced.now(done=40, total=40, numbers=NUMBERS),
    PhaseEnded.now(cost=PhaseCost(name="train", seconds=61.25)),
)


def lines_of(*events: Event) -> list[str]:
    """What a file gets."""
    file = io.StringIO()
    display = Display(Console(file=file, width=100))
    for event in events:
        display.hear(PLAN, event)
    display.end()
    return file.getvalue().splitlines()


def panel_of(*events: Event) -> str:
    """What a terminal shows after the last event."""
    view = RunView(TITLE)
    for event in events:
        view.take(event)
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    with console.capture() as capture:
        console.print(view.render())
    return capture.get()


def test_without_a_terminal_every_note_and_phase_is_a_plain_line() -> None:
    assert lines_of(*EVENTS) == [
        f"{TITLE}: starting",
        f"{TITLE}: loading libraries",
        f"{TITLE}: [train] attaching [the] adapter",
        f"{TITLE}: [train] 40/40  loss 1.235  1,234 tokens/s  resident 3.00 GiB",
        f"{TITLE}: [train] train done in 61.2 s",
    ]


def test_progress_in_a_file_is_not_a_line_per_step() -> None:
    steps = [Advanced.now(done=step, total=1000, numbers={"loss": 1.0}) for step in range(1, 1000)]
    assert len(lines_of(*steps)) < 20


def test_a_terminal_shows_what_is_done_and_what_is_under_way() -> None:
    text = panel_of(*EVENTS, PhaseStarted.now(phase="score"))
    assert TITLE in text
    assert "✓ train  1 min 01 s" in text
    assert "score  " in text


def test_a_terminal_shows_the_numbers_of_the_step() -> None:
    text = panel_of(*EVENTS[:4])
    for words in ("40/40", "loss 1.235", "tokens/s", "3.00 GiB"):
        assert words in text


def test_what_came_before_the_steps_is_not_said_throughout_training() -> None:
    assert "attaching [the] adapter" in panel_of(*EVENTS[:3])
    assert "attaching" not in panel_of(*EVENTS[:4])
    counted = Advanced.now(done=1, total=3)
    assert "answering prompts" in panel_of(Note.now(text="answering prompts"), counted)


def test_a_line_printed_above_a_panel_leaves_its_styles_alone() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, color_system=None)
    display = Display(console)
    display.hear(PLAN, EVENTS[0])
    console.print("a notice", markup=False)
    display.end()
    assert "[bold]" not in file.getvalue()
    assert "[dim]" not in file.getvalue()


def test_a_terminal_gets_no_more_frames_than_a_slow_line_carries() -> None:
    display = Display(Console(file=io.StringIO(), force_terminal=True))
    display.hear(PLAN, EVENTS[0])
    assert display.live is not None
    assert display.live.refresh_per_second <= 4
    display.end()


def test_no_line_of_a_panel_ends_in_blanks_that_a_resize_would_break() -> None:
    text = panel_of(*EVENTS[:4])
    assert "━━" in text
    assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize(
    ("widths", "width", "broken"),
    [([30, 90, 40], 100, 0), ([30, 90, 40], 60, 1), ([30, 90, 40], 30, 3), ([], 10, 0)],
)
def test_lines_that_a_narrower_terminal_breaks_are_counted(
    widths: list[int], width: int, broken: int
) -> None:
    assert broken_lines(widths, width) == broken


def test_a_frame_broken_by_a_resize_is_erased_whole() -> None:
    """A terminal that breaks lines anew, as most do, played on a list of its lines."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, color_system=None)
    frame = TerminalFrame(console)
    frame.follow(Group("x" * 90, "short"))
    console.width = 60
    frame.follow(Group("x" * 60, "short"))
    assert file.getvalue() == "\r\x1b[2K\x1b[1A\x1b[2K", "one line more than rich knows of"
    frame.follow(Group("x" * 60, "short"))
    assert file.getvalue().count("\x1b[1A") == 1


def test_a_validation_is_shown_beside_the_steps_until_training_ends() -> None:
    point = ValidationPoint(step=40, tokens=100, loss=2.34567, seconds=1.0)
    events = (
        PhaseStarted.now(phase="train"),
        Advanced.now(done=40, total=90, numbers={"loss": 1.5}),
        ValidationStarted.now(step=40),
    )
    assert "validating" in panel_of(*events)
    after = (*events, Validated.now(point=point), Advanced.now(done=41, total=90))
    assert "41/90  validation loss 2.346" in panel_of(*after)
    cost = PhaseEnded.now(cost=PhaseCost(name="validate", seconds=61.0))
    assert "✓ validate  1 min 01 s" in panel_of(*after, cost)


def test_a_second_process_of_a_run_begins_with_no_phase_done() -> None:
    assert "✓" not in panel_of(*EVENTS, ProcessStarted.now(pid=1))


def test_runs_at_the_same_time_have_a_panel_each_until_they_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So that no frame of rich's own thread comes between what is done here and what is read.
    monkeypatch.setattr("harness.cli.display.FRAMES_PER_SECOND", 1e-6)
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, color_system=None)
    display = Display(console)
    plans = [planned("qlora_nf4", seed=seed) for seed in (0, 1)]
    for plan in plans:
        display.hear(plan, PhaseStarted.now(phase="train"))
    both = file.getvalue()
    display.result(RunResult(plans[0], record_of(plans[0])))
    after = file.getvalue()[len(both) :]
    display.end()
    assert all(title_of(plan) in both for plan in plans)
    assert title_of(plans[1]) in after
    assert title_of(plans[0]) not in after


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, in a list of one, as the display sees them."""
    now = [0.0]
    monkeypatch.setattr("harness.cli.run_view.time.monotonic", lambda: now[0])
    return now


def test_time_left_counts_from_the_work_at_hand_and_not_from_the_phase(clock: list[float]) -> None:
    lines: list[str] = []
    view = RunView("title", lines.append)
    view.take(PhaseStarted.now(phase="score"))
    clock[0] = 600.0
    view.take(Note.now(text="answering prompts"))
    clock[0] = 610.0
    view.take(Advanced.now(done=1, total=3))
    assert lines[-1] == "title: [score] 1/3  20.0 s left"


def test_work_that_says_nothing_is_still_seen_to_go_on(clock: list[float]) -> None:
    lines: list[str] = []
    view = RunView("title", lines.append)
    view.take(PhaseStarted.now(phase="load"))
    view.take(Note.now(text="loading weights"))
    clock[0] = 5.0
    view.take(Pulse.now(numbers={"resident_bytes": 1 << 30}))
    assert lines[-1] == "title: [load] loading weights, 5.0 s so far"


def test_a_long_line_is_not_broken() -> None:
    assert lines_of(Note.now(text="word " * 60))[-1].endswith("word word ")


def test_every_phase_has_a_title() -> None:
    starts = [PhaseStarted.now(phase=name) for name in PHASES]
    ends = [PhaseEnded.now(cost=PhaseCost(name=name, seconds=1.0)) for name in PHASES]
    assert len(lines_of(*starts, *ends)) == 1 + len(PHASES)


def test_notes_outside_a_run_are_lines_too() -> None:
    file = io.StringIO()
    with Notes(Console(file=file, force_terminal=False, width=100)) as notes:
        notes.note("downloading [weights]")
        notes.advance(1, 2)
    assert "downloading [weights]" in file.getvalue()
