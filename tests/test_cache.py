"""A cached folder appears whole or not at all, once, whoever asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.cache import ENVIRONMENT_VARIABLE, cache_folder, cached_folder
from harness.errors import FetchError, StorageError


def nothing(folder: Path) -> None:
    """Fill a folder with nothing."""


def test_the_environment_chooses_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "")
    assert cache_folder().name == "finetune-harness"


def test_a_folder_is_filled_once(tmp_path: Path) -> None:
    calls = []

    def fill(folder: Path) -> None:
        calls.append(folder)
        (folder / "weights").write_text("w")

    for _ in range(2):
        assert (cached_folder(tmp_path / "a" / "model", fill) / "weights").read_text() == "w"
    assert len(calls) == 1


def test_a_failure_leaves_nothing_that_a_later_run_would_trust(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise FetchError("the line went dead")

    with pytest.raises(FetchError, match="the line went dead"):
        cached_folder(tmp_path / "model", fail)
    left = [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")]
    assert left == []
    assert cached_folder(tmp_path / "model", nothing).is_dir()


def test_an_interrupt_leaves_nothing_either(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_folder(tmp_path / "model", interrupted)
    assert not (tmp_path / "model").exists()
    assert list(tmp_path.glob(".model.*")) == []


def test_a_cache_that_cannot_be_written_names_the_variable_to_set(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file is in the way")
    with pytest.raises(StorageError, match="cannot use the cache") as caught:
        cached_folder(tmp_path / "cache" / "models" / "m", nothing)
    assert ENVIRONMENT_VARIABLE in str(caught.value)
    assert str(tmp_path / "cache") in str(caught.value)


def test_of_two_processes_one_fills_and_the_other_waits(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys, time\n"
        "from harness.cache import cached_folder\n"
        "def fill(folder):\n"
        "    with (pathlib.Path(sys.argv[1]) / 'calls').open('a') as file:\n"
        "        file.write('call\\n')\n"
        "    (folder / 'one').write_text('1')\n"
        "    time.sleep(0.5)\n"
        "    (folder / 'two').write_text('2')\n"
        "found = cached_folder(pathlib.Path(sys.argv[1]) / 'model', fill)\n"
        "print(sorted(path.name for path in found.iterdir()))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].strip() for process in both]
    assert outputs == ["['.digests.json', 'one', 'two']"] * 2
    assert (tmp_path / "calls").read_text() == "call\n"
