"""Which process of a run this is, and what one that is alone does not hear."""

from __future__ import annotations

import os

import pytest

from harness.parallel.ranks import ALONE, first, told_index


def test_torchrun_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert told_index(2) == 1
    assert os.environ["RANK"] == "1", "joining reads it"


def test_a_run_on_one_device_is_the_first_inside_somebody_elses_torchrun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert told_index(1) == 0
    assert not {"RANK", "WORLD_SIZE", "LOCAL_RANK"} & set(os.environ), "libraries would join"


def test_one_process_alone_waits_for_nobody() -> None:
    done = []
    with first(ALONE):
        done.append(ALONE.hand_out("words"))
    assert done == ["words"]
    assert ALONE.gather("words") == ["words"]
