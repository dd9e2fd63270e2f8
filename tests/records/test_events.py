"""Events are the child's account, readable while it writes and after it has crashed."""

from __future__ import annotations

from pathlib import Path

from harness.records.events import EventLog, Silence, read_events


def test_events_are_read_in_order_with_their_time(tmp_path: Path) -> None:
    with EventLog(tmp_path / "run" / "events.jsonl") as log:
        log.note("loading")
        log.advance(1, 40, loss=2.5, tokens_per_second=310.0)
        log.emit("phase_end", phase="train")
    note, progress, end = read_events(tmp_path / "run" / "events.jsonl")
    assert (note["kind"], note["text"]) == ("note", "loading")
    assert (progress["done"], progress["total"], progress["loss"]) == (1, 40, 2.5)
    assert end["phase"] == "train"
    assert note["time"] <= progress["time"] <= end["time"]


def test_an_event_can_be_read_before_the_log_is_closed(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.jsonl") as log:
        log.note("working")
        assert [event["text"] for event in read_events(tmp_path / "events.jsonl")] == ["working"]


def test_a_last_line_cut_by_a_crash_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.note("one")
        log.note("two")
    path.write_bytes(path.read_bytes()[:-9])
    assert [event["text"] for event in read_events(path)] == ["one"]


def test_no_file_means_no_events(tmp_path: Path) -> None:
    assert list(read_events(tmp_path / "events.jsonl")) == []


def test_text_with_line_ends_stays_one_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.note("first\nsecond\u2028third")
    (event,) = read_events(path)
    assert event["text"] == "first\nsecond\u2028third"


def test_silence_takes_everything_and_says_nothing() -> None:
    Silence().note("x")
    Silence().advance(1, 2, loss=3.0)
