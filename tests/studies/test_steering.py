"""Steering: a log of decisions that several terminals may write to, read in its order."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from harness.errors import InvalidFile, StorageError
from harness.studies.steering import Decision, Steering, decide, read_steering, take_over


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "study" / "decisions.jsonl"


def test_without_a_log_nothing_was_decided(log: Path) -> None:
    assert read_steering(log) == Steering()
    assert Steering().dropped == frozenset()


def test_decisions_are_read_in_the_order_in_which_they_were_taken(log: Path) -> None:
    decide(log, ("drop", "qlora_fp4"))
    decide(log, ("add", "qlora_nf4"))
    decide(log, ("more_seeds", "2"))
    decide(log, ("add", "lora_r64"))
    decide(log, ("give_up", "quick/lora_bf16/0-abc"))
    found = read_steering(log)
    assert [one.kind for one in found.decisions] == ["drop", "add", "more_seeds", "add", "give_up"]
    assert found.dropped == {"qlora_fp4"}
    assert found.added == ("qlora_nf4", "lora_r64")
    assert found.given_up == {"quick/lora_bf16/0-abc"}
    assert all(one.time.endswith("+00:00") for one in found.decisions)


@pytest.mark.parametrize(
    "line",
    ["{", '{"time": "t", "kind": "explode", "value": "x"}', '{"kind": "drop", "value": "x"}', "[]"],
)
def test_a_line_that_is_no_decision_is_named_with_its_number(log: Path, line: str) -> None:
    decide(log, ("drop", "a"))
    with log.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(InvalidFile, match="line 2 is no decision") as caught:
        read_steering(log)
    assert str(log) in str(caught.value)
    assert "remove the line" in str(caught.value)


def test_lines_of_several_writers_do_not_mix(log: Path) -> None:
    def write(name: str) -> None:
        for number in range(25):
            decide(log, ("drop", f"{name}{number}"))

    writers = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    found = read_steering(log)
    assert len(found.decisions) == 100
    assert found.dropped == {f"{name}{number}" for name in "abcd" for number in range(25)}


def test_a_log_that_cannot_be_written_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot write"):
        decide(tmp_path / "file" / "decisions.jsonl", ("drop", "a"))


def test_a_value_with_line_breaks_stays_one_decision(log: Path) -> None:
    decide(log, ("drop", "a\nb"))
    assert read_steering(log).dropped == {"a\nb"}
    assert isinstance(read_steering(log).decisions[0], Decision)


def test_what_one_command_decides_has_one_time(log: Path) -> None:
    decide(log, ("drop", "qlora_fp4"), ("add", "qlora_nf4"), ("add", "lora_r64"))
    decide(log, ("add", "lora_r4"))
    first, second, third, later = read_steering(log).decisions
    assert first.time == second.time == third.time < later.time
    assert third.goes_with(second)
    assert not later.goes_with(third)


def test_a_decision_follows_those_that_are_known_whatever_the_clocks(log: Path) -> None:
    """Another machine's clock may be ahead; the error is shared out in the order of times."""
    ahead = Decision(time="2999-01-01T00:00:00.000000+00:00", kind="add", value="qlora_nf4")
    take_over(log, [ahead.model_dump_json()], "s3://store")
    decide(log, ("add", "lora_r64"))
    decide(log, ("add", "lora_r4"))
    assert read_steering(log).added == ("qlora_nf4", "lora_r64", "lora_r4")
    times = [one.time for one in read_steering(log).decisions]
    assert times == sorted(set(times))


def test_decisions_from_elsewhere_are_taken_over_once_and_stand_where_they_were_taken(
    log: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.jsonl"
    decide(log, ("add", "lora_r64"))
    decide(other, ("add", "qlora_nf4"))
    decide(log, ("drop", "lora_r64"))
    lines = [one.model_dump_json() for one in read_steering(other).decisions]
    for _ in range(2):
        take_over(log, lines, "s3://store")
    found = read_steering(log)
    assert [one.value for one in found.decisions] == ["lora_r64", "qlora_nf4", "lora_r64"]
    assert found.added == ("lora_r64", "qlora_nf4")
    with pytest.raises(InvalidFile, match="no decision") as caught:
        take_over(log, ["{}"], "s3://store")
    assert "s3://store" in str(caught.value)
    assert read_steering(log) == found
