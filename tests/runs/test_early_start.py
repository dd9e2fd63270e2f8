"""The process begun with a command: it waits without a trace, and becomes the first run's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.records.store import RunFolder
from harness.runs.early_start import EarlyStart
from harness.runs.process import Child
from tests.runs.test_warm import alive, wait_for


@pytest.fixture
def early() -> Iterator[EarlyStart]:
    """One that has begun; it is closed whatever a test does."""
    found = EarlyStart()
    found.begin()
    yield found
    found.close()


def child_of(early: EarlyStart) -> int:
    """Process id of the one that waits."""
    assert early.pid is not None
    return early.pid


def test_it_ends_with_the_command_that_has_no_use_for_it(early: EarlyStart) -> None:
    pid = child_of(early)
    early.begin()
    assert child_of(early) == pid, "there is one at most"
    early.close()
    assert not alive(pid)
    assert early.take([RunFolder(Path("none"))]) is None
    early.close()


def test_it_is_not_used_where_libraries_would_find_something_else_now(
    early: EarlyStart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = child_of(early)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    assert early.take([RunFolder(tmp_path)]) is None
    assert not alive(pid)


def test_one_that_has_died_is_not_used(early: EarlyStart, tmp_path: Path) -> None:
    os.kill(child_of(early), signal.SIGKILL)
    wait_for(lambda: not alive(child_of(early)))
    assert early.take([RunFolder(tmp_path)]) is None


def test_it_is_given_away_once(early: EarlyStart, tmp_path: Path) -> None:
    child: Child | None = early.take([RunFolder(tmp_path)])
    assert child is not None
    assert early.take([RunFolder(tmp_path)]) is None
    early.close()
    assert child.poll() is None, "it is no longer the command's to end"
    os.killpg(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def test_it_leaves_when_the_command_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "from harness.runs.early_start import early_start\n"
        "early_start().begin()\n"
        "print(early_start().pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    pid = int(killed.stdout)
    wait_for(lambda: not alive(pid))
    assert list(tmp_path.iterdir()) == []
