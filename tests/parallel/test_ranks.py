"""Which process of a run this is, and what one that is alone does not hear."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from harness.parallel.ranks import ALONE, first, told_index
from harness.runs.self_test import meeting_place
from tests.parallel.pair import ROOT


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


JOIN = """
import os
from harness.parallel.ranks import Joined
Joined(cuda=False, silence_seconds=60)
print(os.environ["TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC"], os.environ["TORCH_NCCL_DUMP_ON_TIMEOUT"])
"""


@pytest.mark.parametrize(
    ("told", "expected"),
    [({}, "250 0"), ({"TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC": "9000"}, "9000 0")],
)
def test_a_device_that_hangs_is_told_of_when_the_time_is_over(
    told: dict[str, str], expected: str
) -> None:
    """NCCL's watchdog would wait for another minute, for a record of its own that nobody reads."""
    with meeting_place(1) as place:
        said = subprocess.run(
            [sys.executable, "-c", JOIN],
            env={**os.environ, **place, "RANK": "0", "PYTHONPATH": str(ROOT), **told},
            capture_output=True,
            text=True,
            check=True,
        )
    assert said.stdout.split() == expected.split()
