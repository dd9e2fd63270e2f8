"""What starts the processes of several devices fits the version of torch that is there."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from torch.distributed.launcher.api import LaunchConfig

from harness.records.store import RunFolder
from harness.runs.torchrun import INTERRUPTED, NEWER, _known, _write_endings


@dataclass
class Older:
    """A launch configuration as torch 2.11 has it, as far as it matters."""

    signals_to_handle: str = ""


def test_settings_that_torch_does_not_have_are_left_out() -> None:
    assert set(_known(Older, NEWER)) == {"signals_to_handle"}
    names = {field.name for field in fields(LaunchConfig)}
    assert set(_known(LaunchConfig, NEWER)) == set(NEWER) & names


@dataclass
class Failure:
    """What torchrun says of a process that did not end well."""

    exitcode: int
    timestamp: int = 0


@pytest.mark.parametrize(
    ("codes", "ends"),
    [
        ({0: INTERRUPTED, 1: -9}, 1),
        ({0: INTERRUPTED, 1: 1}, 1),
        ({0: INTERRUPTED, 1: INTERRUPTED}, INTERRUPTED),
        ({1: -9}, 1),
    ],
)
def test_a_process_that_torchrun_interrupted_is_no_interruption_by_the_user(
    tmp_path: Path, codes: dict[int, int], ends: int
) -> None:
    """On two GPUs a process waits for the killed one in NCCL until torchrun ends it."""
    failures = {rank: Failure(code) for rank, code in codes.items()}
    folder = RunFolder(tmp_path)
    assert _write_endings(folder, failures, None) == ends
    assert folder.ending_of(1).exists() == (codes.get(1) == -9)
