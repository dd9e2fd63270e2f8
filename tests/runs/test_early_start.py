"""The process begun with a command: it waits without a trace, and becomes the first run's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.records.store import RunFolder, RunStore
from harness.runs.begun import follow
from harness.runs.early_start import EarlyStart, early_start, order
from harness.runs.process import Child
from harness.runs.supervise import supervise
from tests.runs.small_run import Heard, Small
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


@pytest.mark.parametrize(("name", "value"), [("MKL_NUM_THREADS", "7"), ("PYTHONPATH", "other")])
def test_it_is_not_used_where_libraries_would_find_something_else_now(
    early: EarlyStart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    pid = child_of(early)
    monkeypatch.setenv(name, value)
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


BROKEN = """
import pathlib, time
time.sleep(1)
pathlib.Path(__file__).with_name("tried").touch()
raise ImportError("libcudart.so.12: cannot open shared object file")
"""


@pytest.mark.parametrize("begins", [False, True])
def test_a_library_that_fails_is_told_and_counted_as_in_a_fresh_process(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: bool
) -> None:
    """Also where it fails before the run's folder is known."""
    library = tmp_path / "torch" / "__init__.py"
    library.parent.mkdir()
    library.write_text(BROKEN)
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{before}")
    early_start().close()  # one of another test, whose command has not ended
    pid = None
    if begins:
        early_start().begin()
        pid = early_start().pid
        wait_for(library.with_name("tried").exists)
    heard = Heard()
    record = supervise(small.plan(), RunStore(tmp_path / "runs"), heard)
    assert not begins or heard.pid == pid
    assert record.problem is not None
    assert record.problem.kind == "crash"
    assert record.problem.message.startswith("ImportError: libcudart.so.12: cannot open")
    assert "Traceback" in record.problem.log_tail
    assert record.seconds >= 1, "loading the libraries is a part of the run"


def test_it_is_told_at_once_however_large_the_environment_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe takes a little at once, and the process may be busy with its libraries."""
    monkeypatch.setenv("LARGE", "x" * 100_000)
    early = EarlyStart()
    early.begin()
    os.kill(child_of(early), signal.SIGSTOP)
    children: list[Child | None] = []
    telling = threading.Thread(
        target=lambda: children.append(early.take([RunFolder(tmp_path)])), daemon=True
    )
    telling.start()
    telling.join(120)
    if not children:
        os.kill(child_of(early), signal.SIGKILL)
        telling.join()
        pytest.fail("it waits until the process reads")
    (child,) = children
    assert child is not None
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def test_a_fresh_process_is_told_what_does_not_fit_into_a_pipe(
    early: EarlyStart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = child_of(early)
    monkeypatch.setenv("LARGE", "x" * 5_000)
    assert early.take([RunFolder(tmp_path)]) is None
    assert not alive(pid)


def test_it_takes_over_what_was_changed_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {"KEPT": "1", "CHANGED": "1", "REMOVED": "1"}
    after = {"KEPT": "1", "CHANGED": "\udcff", "ADDED": "2"}
    monkeypatch.setattr(os, "environ", dict(before))
    assert follow(order([RunFolder(tmp_path)], before, after)) == [tmp_path]
    assert os.environ == after
