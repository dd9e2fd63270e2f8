"""`doctor` prints a line for every check."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cache import ENVIRONMENT_VARIABLE
from tests.cli.terminal import refused, shown


def test_what_is_well_what_is_missing_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "file"))
    lines = shown("doctor").splitlines()
    (python,) = [line for line in lines if "Python" in line and "ok" in line]
    assert "3." in python
    (folder,) = [line for line in lines if "cache folder" in line]
    assert "missing" in folder
    text = " ".join(lines)
    assert ENVIRONMENT_VARIABLE in text


def test_what_two_devices_compute_together_is_tried_on_this_machine() -> None:
    lines = shown("doctor", "--gpus", "--devices", "2").splitlines()
    marks = {}
    for way in ("data", "sharded"):
        for name in ("none", "nf4", "nf4+dq", "fp4", "int8", "int4", "every weight"):
            (line,) = [line for line in lines if f" {way}, {name} " in line]
            marks[way, name] = line.split()[1]
    refused_ones = {("sharded", "int8"), ("sharded", "int4")}
    assert {case for case, mark in marks.items() if mark == "note"} == refused_ones
    assert {mark for case, mark in marks.items() if case not in refused_ones} == {"ok"}


def test_a_number_of_devices_without_trying_them_is_refused() -> None:
    assert "--devices 2 without --gpus" in refused("doctor", "--devices", "2")
