"""`doctor` prints a line for every check."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cache import ENVIRONMENT_VARIABLE
from tests.cli.terminal import shown


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
