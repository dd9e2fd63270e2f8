"""Whole: a folder is there complete or not at all, whatever happens while it is filled."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from harness.deploy.whole import RESERVE_BYTES, check_room, check_target, write_whole
from harness.errors import StorageError, UserError
from harness.spec.storage import free_bytes


def fill(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_text("content", encoding="utf-8")


def test_the_folder_appears_with_all_it_holds_and_nothing_beside_it(tmp_path: Path) -> None:
    target = write_whole(tmp_path / "new" / "out", fill)
    assert (target / "deep" / "file").read_text(encoding="utf-8") == "content"
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_while_it_is_filled_it_is_not_there(tmp_path: Path) -> None:
    def look(folder: Path) -> None:
        assert not (tmp_path / "out").exists()
        assert folder.parent == tmp_path, "on the same disk, so that it can be renamed"
        fill(folder)

    write_whole(tmp_path / "out", look)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise error

    wanted = StorageError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(wanted):
        write_whole(tmp_path / "out", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_in_a_sentence(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise OSError(28, "No space left on device", str(folder))

    with pytest.raises(StorageError, match="cannot write: No space left on device") as caught:
        write_whole(tmp_path / "out", fail)
    assert "free some space" in str(caught.value)


def test_what_a_killed_export_left_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / ".out.part"
    left.mkdir()
    (left / "half").write_text("x", encoding="utf-8")
    target = write_whole(tmp_path / "out", fill)
    assert not (target / "half").exists()
    assert not left.exists()


def test_two_exports_into_one_folder_do_not_meet(tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".out.lock"),
        pytest.raises(UserError, match="another export into this folder is under way"),
    ):
        write_whole(tmp_path / "out", fill)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_somebody_made_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def interfere(folder: Path) -> None:
        fill(folder)
        (tmp_path / "out").mkdir()

    with pytest.raises(UserError, match="already exists"):
        write_whole(tmp_path / "out", interfere)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_what_is_there_is_not_overwritten(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    if kind == "folder":
        target.mkdir()
    elif kind == "file":
        target.write_text("mine", encoding="utf-8")
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="the target already exists"):
        check_target(target)


def test_a_file_is_no_folder_to_write_into(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="not a folder"):
        check_target(tmp_path / "file" / "deep" / "out")


def test_room_is_asked_of_the_disk_on_which_it_will_lie(tmp_path: Path) -> None:
    free = free_bytes(tmp_path / "not" / "there" / "yet")
    assert free > 0
    check_room(tmp_path / "out", 1)
    with pytest.raises(StorageError, match="the export needs") as caught:
        check_room(tmp_path / "out", free + RESERVE_BYTES)
    assert "are free" in str(caught.value)
