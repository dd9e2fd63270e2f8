"""One process at a time works in a run folder, and others are told which one it is."""

from __future__ import annotations

import os
import threading
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from harness.errors import RunInUse, StorageError
from harness.records.events import Event, Note
from harness.records.store import RunFolder
from harness.runs import lock
from harness.runs.lock import held
from harness.runs.stop import Stop


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "quick" / "base" / "0-abc")


def unheard(event: Event) -> None:
    """Nobody listens."""


def test_the_folder_is_made_and_says_who_works_in_it_until_the_work_ends(
    folder: RunFolder,
) -> None:
    with held(folder, unheard, Stop(), wait=False):
        assert f"process {os.getpid()} on " in folder.holder.read_text()
    assert not folder.holder.exists()
    with held(folder, unheard, Stop(), wait=False):
        pass


def test_a_failure_inside_lets_go_of_the_lock(folder: RunFolder) -> None:
    with pytest.raises(ZeroDivisionError), held(folder, unheard, Stop(), wait=False):
        raise ZeroDivisionError
    with held(folder, unheard, Stop(), wait=False):
        pass


def test_who_does_not_wait_is_told_who_holds_it(folder: RunFolder) -> None:
    with (
        held(folder, unheard, Stop(), wait=False),
        pytest.raises(RunInUse, match=rf"process {os.getpid()} on .* is already running this plan"),
        held(folder, unheard, Stop(), wait=False),
    ):
        pytest.fail("two held it at once")


def test_a_holder_that_nobody_wrote_down_is_another_process(folder: RunFolder) -> None:
    with held(folder, unheard, Stop(), wait=False):
        folder.holder.unlink()
        with (
            pytest.raises(RunInUse, match=r"^another process is"),
            held(folder, unheard, Stop(), wait=False),
        ):
            pytest.fail("two held it at once")


def test_who_waits_says_so_once_and_gets_it(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "WAIT_SECONDS", 0.01)
    heard: list[Event] = []
    waiting, got = threading.Event(), threading.Event()

    def hear(event: Event) -> None:
        heard.append(event)
        waiting.set()

    def other() -> None:
        with held(folder, hear, Stop(), wait=True):
            got.set()

    thread = threading.Thread(target=other)
    with held(folder, unheard, Stop(), wait=False):
        thread.start()
        assert waiting.wait(300)
        assert not got.wait(0.1)
    assert got.wait(300)
    thread.join(300)
    (note,) = heard
    assert isinstance(note, Note)
    assert note.text.startswith("waiting for process ")


def test_who_is_asked_to_stop_waits_no_longer(folder: RunFolder) -> None:
    stop = Stop()
    stop.ask()
    with (
        held(folder, unheard, Stop(), wait=False),
        pytest.raises(CancelledError),
        held(folder, unheard, stop, wait=True),
    ):
        pytest.fail("two held it at once")


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(StorageError, match="cannot use the run folder") as caught,
        held(RunFolder(tmp_path / "file" / "run"), unheard, Stop(), wait=False),
    ):
        pytest.fail("there is no such folder")
    assert "--reports" in str(caught.value)
