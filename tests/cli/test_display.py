"""A person sees phase, step, numbers and time left; a file gets plain lines."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness.cli.display import Display, Notes
from harness.records.record import PHASES

EVENTS = [
    {"kind": "note", "time": 0.0, "text": "loading libraries"},
    {"kind": "phase_start", "time": 0.0, "phase": "train"},
    {"kind": "note", "time": 0.0, "text": "attaching [the] adapter"},
    {
        "kind": "progress",
        "time": 0.0,
        "done": 40,
        "total": 40,
        "loss": 1.23456,
        "tokens_per_second": 1234.5,
        "resident_bytes": 3 << 30,
    },
    {"kind": "phase_end", "time": 0.0, "phase": "train", "cost": {"seconds": 61.25}},
]


def shown(*, terminal: bool, events: list[dict] | None = None) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, color_system=None)
    with Display(console, "qlora_nf4 on quick, seed 0") as display:
        for event in EVENTS if events is None else events:
            display(event)
        if terminal:
            console.print(display._render())
    return file.getvalue()


def test_without_a_terminal_every_note_and_phase_is_a_plain_line() -> None:
    lines = shown(terminal=False).splitlines()
    title = "qlora_nf4 on quick, seed 0: "
    assert lines == [
        f"{title}starting",
        f"{title}loading libraries",
        f"{title}[train] attaching [the] adapter",
        f"{title}[train] 40/40  loss 1.235  1,234 tokens/s  resident 3.00 GiB",
        f"{title}[train] train done in 61.2 s",
    ]


def test_plain_lines_carry_no_control_codes() -> None:
    assert "\x1b" not in shown(terminal=False)


def test_progress_in_a_file_is_not_a_line_per_step() -> None:
    steps = [
        {"kind": "progress", "time": 0.0, "done": step, "total": 1000, "loss": 1.0}
        for step in range(1, 1000)
    ]
    assert len(shown(terminal=False, events=steps).splitlines()) < 20


def test_a_terminal_shows_what_is_done_and_what_is_under_way() -> None:
    text = shown(terminal=True)
    assert "qlora_nf4 on quick, seed 0" in text
    assert "✓" in text
    assert "1 min 01 s" in text


def test_a_terminal_shows_the_numbers_of_the_step() -> None:
    text = shown(terminal=True, events=EVENTS[:4])
    assert "40/40" in text
    assert "loss 1.235" in text
    assert "tokens/s" in text
    assert "3.00 GiB" in text


def test_time_left_follows_from_the_pace() -> None:
    events = [EVENTS[1], {"kind": "progress", "time": 0.0, "done": 1, "total": 4}]
    assert " left" in shown(terminal=True, events=events)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, in a list of one, as the display sees them."""
    now = [0.0]
    monkeypatch.setattr("harness.cli.display.time.monotonic", lambda: now[0])
    return now


def test_time_left_counts_from_the_work_at_hand_and_not_from_the_phase(clock: list[float]) -> None:
    file = io.StringIO()
    display = Display(Console(file=file, width=100), "title")
    display({"kind": "phase_start", "phase": "score"})
    clock[0] = 600.0
    display({"kind": "note", "text": "answering prompts"})
    clock[0] = 610.0
    display({"kind": "progress", "done": 1, "total": 3})
    assert "1/3  20.0 s left" in file.getvalue()


def test_work_that_says_nothing_is_still_seen_to_go_on(clock: list[float]) -> None:
    file = io.StringIO()
    display = Display(Console(file=file, width=100), "title")
    display({"kind": "phase_start", "phase": "load"})
    display({"kind": "note", "text": "loading weights"})
    clock[0] = 5.0
    display({"kind": "pulse", "resident_bytes": 1 << 30})
    assert "loading weights, 5.0 s so far" in file.getvalue()


def test_a_long_title_is_not_broken_into_lines() -> None:
    file = io.StringIO()
    with Display(Console(file=file, width=40), "title " * 20):
        pass
    assert len(file.getvalue().splitlines()) == 1


def test_every_phase_has_a_title() -> None:
    events: list[dict] = [{"kind": "phase_start", "time": 0.0, "phase": name} for name in PHASES]
    events += [
        {"kind": "phase_end", "time": 0.0, "phase": name, "cost": {"seconds": 1.0}}
        for name in PHASES
    ]
    assert len(shown(terminal=False, events=events).splitlines()) == 1 + len(PHASES)


def test_events_of_a_kind_it_does_not_know_are_passed_over() -> None:
    assert shown(terminal=False, events=[{"kind": "end", "time": 0.0, "status": "ok"}])


def test_notes_outside_a_run_are_lines_too() -> None:
    file = io.StringIO()
    with Notes(Console(file=file, force_terminal=False, width=100)) as notes:
        notes.note("downloading [weights]")
        notes.advance(1, 2)
    assert "downloading [weights]" in file.getvalue()
