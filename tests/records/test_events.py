"""Events are the child's account, readable while it writes and after it has crashed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness.records.events import (
    Advanced,
    Event,
    EventLog,
    EventTail,
    Note,
    PhaseEnded,
    PhaseStarted,
    ProcessStarted,
    Progress,
    Pulse,
    RunStarted,
    Silence,
)
from harness.records.record import PhaseCost

COST = PhaseCost(name="train", seconds=2.5, peak_resident_bytes=1 << 30)
EVENTS = (
    RunStarted.now(host="here"),
    ProcessStarted.now(pid=4711),
    PhaseStarted.now(phase="train"),
    Note.now(text="loading"),
    Advanced.now(done=1, total=40, numbers={"loss": 2.5}),
    Pulse.now(numbers={"resident_bytes": 5.0}),
    PhaseEnded.now(cost=COST),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "events.jsonl"


def read(path: Path) -> list[Event]:
    return list(EventTail(path).new())


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_every_kind_is_read_as_it_was_written(path: Path, event: Event) -> None:
    with EventLog(path) as log:
        log.emit(event)
    assert read(path) == [event]


def test_a_phase_says_what_it_does_and_how_far_it_is(path: Path) -> None:
    with EventLog(path) as log:
        log.note("loading")
        log.advance(1, 40, loss=2.5, tokens_per_second=310.0)
    note, progress = read(path)
    assert isinstance(note, Note)
    assert isinstance(progress, Advanced)
    assert note.text == "loading"
    assert (progress.done, progress.total) == (1, 40)
    assert progress.numbers == {"loss": 2.5, "tokens_per_second": 310.0}
    assert note.clock <= progress.clock <= time.monotonic()


def test_a_number_that_is_not_finite_is_left_out_and_the_others_stay(path: Path) -> None:
    with EventLog(path) as log:
        log.advance(1, 2, loss=float("nan"), grad_norm=float("inf"), learning_rate=1.0)
    (event,) = read(path)
    assert isinstance(event, Advanced)
    assert event.numbers == {"learning_rate": 1.0}


def test_an_event_can_be_read_before_the_log_is_closed(path: Path) -> None:
    tail = EventTail(path)
    assert list(tail.new()) == [], "there need not be a file yet"
    with EventLog(path) as log:
        for text in ("one", "two"):
            log.note(text)
            (event,) = tail.new()
            assert isinstance(event, Note)
            assert event.text == text


def test_a_last_line_that_is_cut_is_not_an_event_yet(path: Path) -> None:
    with EventLog(path) as log:
        log.note("one")
        log.note("two")
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    tail = EventTail(path)
    assert [event.kind for event in tail.new()] == ["note"]
    with path.open("ab") as file:
        file.write(whole[-9:])
    assert [event.kind for event in tail.new()] == ["note"]
    assert tail.skipped == 0


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind":"phase_start","time":1,"clock":1,"phase":"x"}',
        b'{"kind":"phase_start","phase":"train"}',
        b'{"kind":"note","time":"noon","clock":1,"text":"x"}',
        b'{"kind":"note","time":1e300,"clock":1,"text":"x"}',
        b'{"kind":"note","time":1,"clock":NaN,"text":"x"}',
        b'{"kind":"progress","time":1,"clock":1,"done":-1,"total":2}',
        b'{"kind":"progress","time":1,"clock":1,"done":1,"total":2,"numbers":{"loss":"low"}}',
        b'{"kind":"phase_end","time":1,"clock":1,"cost":{"seconds":1}}',
        b'{"kind":"an event of a later harness","time":1,"clock":1}',
        b'{"time":1,"clock":1}',
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe\x00",
        b"\x00" * 40,
        b"[" * 200_000,
        b"",
    ],
    ids=range(17),
)
def test_a_line_that_is_no_event_is_counted_and_hides_no_other(path: Path, line: bytes) -> None:
    with EventLog(path) as log:
        log.note("before")
        path.open("ab").write(line + b"\n")
        log.note("after")
    tail = EventTail(path)
    assert [event.text for event in tail.new() if isinstance(event, Note)] == ["before", "after"]
    assert tail.skipped == 1


def test_fields_that_a_later_harness_adds_are_passed_over(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"kind":"note","time":1,"clock":1,"text":"x","colour":"red"}\n')
    assert [event.kind for event in read(path)] == ["note"]


@pytest.mark.parametrize("text", ["first\nsecond\u2028third", "a file named \udcff"])
def test_any_text_is_one_event(path: Path, text: str) -> None:
    with EventLog(path) as log:
        log.note(text)
    (event,) = read(path)
    assert isinstance(event, Note)
    assert event.text == text.replace("\udcff", "?")


def test_silence_is_a_progress_that_writes_nothing(tmp_path: Path) -> None:
    progress: Progress = Silence()
    before = set(tmp_path.iterdir())
    assert progress.note("x") is None
    assert progress.advance(1, 2, loss=3.0) is None
    assert set(tmp_path.iterdir()) == before
