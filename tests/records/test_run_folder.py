"""An attempt becomes the result file by file, the record last, and may be tried again."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import StorageError
from harness.records.store import RunFolder, is_whole
from harness.spec.digests import file_sha256
from tests.records.test_store import score


def fill(folder: RunFolder, mark: str) -> RunFolder:
    """Every file of a run, each with ``mark`` in it."""
    for path in (folder.items / "a.parquet", folder.adapter / "weights.safetensors"):
        path.parent.mkdir(parents=True)
        path.write_text(mark)
    for path in (folder.log, folder.events, folder.plan, folder.record):
        path.write_text(mark)
    folder.checkpoint.mkdir()
    return folder


def marks(folder: RunFolder) -> set[str]:
    paths = [
        folder.items / "a.parquet",
        folder.adapter / "weights.safetensors",
        folder.log,
        folder.events,
        folder.plan,
        folder.record,
    ]
    return {path.read_text() for path in paths}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "quick" / "base" / "0-abc")


def test_a_whole_attempt_is_moved(run: RunFolder) -> None:
    fill(run.attempt, "new")
    run.publish(whole=True)
    assert marks(run) == {"new"}
    assert not run.attempt.path.exists()
    assert not run.checkpoint.exists(), "checkpoints are no result"


def test_an_attempt_that_did_not_end_well_is_copied_since_it_is_resumed(run: RunFolder) -> None:
    fill(run.attempt, "cut")
    run.publish(whole=False)
    assert marks(run) == marks(run.attempt) == {"cut"}
    assert run.attempt.checkpoint.is_dir()


def test_a_later_attempt_replaces_all_of_an_earlier_result(run: RunFolder) -> None:
    fill(run, "old")
    (run.items / "b.parquet").write_text("old")
    fill(run.attempt, "new")
    run.publish(whole=True)
    assert marks(run) == {"new"}
    assert not (run.items / "b.parquet").exists()


def test_a_failed_attempt_without_items_leaves_none_of_an_earlier_one(run: RunFolder) -> None:
    fill(run, "old")
    run.attempt.path.mkdir()
    run.attempt.record.write_text("failed")
    run.publish(whole=False)
    assert not run.items.exists()
    assert not run.adapter.exists()
    assert run.record.read_text() == "failed"


def test_publishing_that_was_cut_off_is_completed_by_a_second_call(run: RunFolder) -> None:
    fill(run.attempt, "new")
    run.items.parent.mkdir(parents=True, exist_ok=True)
    run.attempt.items.replace(run.items)  # where the first call was killed
    run.publish(whole=True)
    assert marks(run) == {"new"}


def test_a_result_from_elsewhere_is_taken_over(run: RunFolder, tmp_path: Path) -> None:
    fill(run, "old")
    came = fill(RunFolder(tmp_path / "came"), "came")
    run.take(came.path)
    assert marks(run) == {"came"}


def test_a_folder_that_cannot_be_written_is_a_storage_error(run: RunFolder) -> None:
    fill(run.attempt, "new")
    run.record.mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        run.publish(whole=True)
    assert run.attempt.record.is_file(), "nothing of the attempt is lost"


def test_processes_of_further_devices_have_files_of_their_own(run: RunFolder) -> None:
    assert (run.events_of(0), run.lock_of(0)) == (run.events, run.lock)
    names = [path(1).name for path in (run.events_of, run.lock_of, run.ending_of)]
    assert names == ["events-1.jsonl", ".lock-1", "ending-1.json"]
    assert run.variant == "base"


def test_items_are_whole_if_they_are_the_ones_that_were_written(tmp_path: Path) -> None:
    path = tmp_path / "items" / "a.parquet"
    path.parent.mkdir()
    path.write_bytes(b"items")
    plain = score("perplexity", 2.0, "after")
    kept = plain.model_copy(update={"items": "items/a.parquet"})
    sealed = kept.model_copy(update={"items_sha256": file_sha256(path)})
    assert is_whole(plain, tmp_path), "a score without items lacks none"
    assert is_whole(kept, tmp_path)
    assert is_whole(sealed, tmp_path)
    path.write_bytes(b"itemz")
    assert is_whole(kept, tmp_path), "an older score holds no digest"
    assert not is_whole(sealed, tmp_path)
    path.unlink()
    assert not is_whole(kept, tmp_path)
