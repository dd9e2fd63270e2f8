"""Runs travel through a store that fsspec reaches: a folder's URL, and one in memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from harness.errors import InvalidFile, StorageError, UserError
from harness.records.record import RunRecord
from harness.records.store import RunStore
from harness.runs.bucket import Bucket, Rest, fetch_rest
from harness.runs.listener import RunResult
from harness.spec.digests import file_sha256
from harness.spec.plan import Plan
from harness.spec.storage import read_json, write_json
from tests.planned import planned
from tests.runs.results import files
from tests.studies.stub import StubExecutor, World

PLAN = planned()
NAME = PLAN.run_name


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store."""
    there = tmp_path / "bucket" if request.param == "file" else Path(f"/{uuid4().hex}")
    return f"{request.param}://{there}"


def made(folder: Path, plan: Plan = PLAN) -> tuple[RunStore, RunRecord]:
    """A store with one run, which has items and a log."""
    store = RunStore(folder)
    record = StubExecutor(store, World()).run(plan)
    store.folder(plan).log.write_text("what it printed")
    return store, record


def test_a_run_comes_back_whole(url: str, tmp_path: Path) -> None:
    here, record = made(tmp_path / "here")
    Bucket(url, here).result(RunResult(PLAN, record))
    there = RunStore(tmp_path / "there")
    bucket = Bucket(url, there)
    assert bucket.exchange([NAME, "quick/other/0-1"], []) == 1
    assert there.find(PLAN) == record
    assert files(there, PLAN) == files(here, PLAN)
    assert files(there, PLAN)
    fetch_rest(there.folder(PLAN))
    assert there.folder(PLAN).log.read_text() == "what it printed"
    assert not list(there.root.rglob(".fetched"))
    assert bucket.exchange([NAME], []) == 0, "once is enough"


def test_what_this_machine_had_alone_is_sent(url: str, tmp_path: Path) -> None:
    here, record = made(tmp_path / "here")
    Bucket(url, here).exchange([], [NAME])
    there = RunStore(tmp_path / "there")
    Bucket(url, there).exchange([NAME], [])
    assert there.find(PLAN) == record


def test_half_a_run_is_not_there(tmp_path: Path) -> None:
    here, _ = made(tmp_path / "here")
    url = f"file://{tmp_path / 'bucket'}"
    Bucket(url, here).exchange([], [NAME])
    (tmp_path / "bucket" / NAME / "record.json").rename(
        tmp_path / "bucket" / NAME / "record.json.part"
    )
    there = RunStore(tmp_path / "there")
    assert Bucket(url, there).exchange([NAME], []) == 0
    assert there.find(PLAN) is None


def meanwhile(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something when ``bucket`` is about to give a file its name."""
    move = bucket._files.mv

    def act_and_move(*paths: str) -> None:
        monkeypatch.setattr(bucket._files, "mv", move)
        act()
        move(*paths)

    monkeypatch.setattr(bucket._files, "mv", act_and_move)


def test_two_machines_may_send_one_run_at_the_same_moment(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, record = made(tmp_path / "here")
    first, second = Bucket(url, here), Bucket(url, here)
    meanwhile(first, monkeypatch, lambda: second.exchange([], [NAME]))
    first.exchange([], [NAME])
    there = RunStore(tmp_path / "there")
    Bucket(url, there).exchange([NAME], [])
    assert there.find(PLAN) == record


def test_two_machines_may_share_one_text_at_the_same_moment(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (Bucket(url, RunStore(tmp_path)) for _ in range(2))
    meanwhile(first, monkeypatch, lambda: second.share("decisions", ["one"]))
    assert first.share("decisions", ["one"]) == ["one"]
    assert Bucket(url, RunStore(tmp_path)).share("decisions", []) == ["one"]


def with_adapter(here: RunStore, record: RunRecord) -> Path:
    """Give the run an adapter; returns the file of its weights."""
    folder = here.folder(PLAN)
    folder.adapter.mkdir()
    weights = folder.adapter / "adapter_model.safetensors"
    weights.write_bytes(b"mine")
    digests = {weights.name: file_sha256(weights)}
    write_json(folder.record, record.model_copy(update={"adapter_sha256": digests}))
    return weights


def test_what_no_study_judges_by_comes_when_it_is_wanted(url: str, tmp_path: Path) -> None:
    here, record = made(tmp_path / "here")
    with_adapter(here, record)
    Bucket(url, here).exchange([], [NAME])
    there = RunStore(tmp_path / "there")
    folder = there.folder(PLAN)
    Bucket(url, there).exchange([NAME], [])
    assert there.find(PLAN) == here.find(PLAN)
    assert list(folder.items.iterdir())
    assert folder.plan.is_file() == here.folder(PLAN).plan.is_file()
    assert not folder.adapter.exists()
    assert not folder.log.exists()
    fetch_rest(folder)
    assert (folder.adapter / "adapter_model.safetensors").read_bytes() == b"mine"
    assert folder.log.read_text() == "what it printed"
    assert not folder.rest.exists()
    fetch_rest(folder)  # nothing is left to fetch


def test_a_run_of_one_store_goes_to_another_whole(tmp_path: Path) -> None:
    here, record = made(tmp_path / "here")
    with_adapter(here, record)
    first, second = (f"file://{tmp_path / name}" for name in ("first", "second"))
    Bucket(first, here).exchange([], [NAME])
    there = RunStore(tmp_path / "there")
    Bucket(first, there).exchange([NAME], [])
    Bucket(second, there).exchange([], [NAME])
    sent = tmp_path / "second" / NAME
    assert (sent / "adapter" / "adapter_model.safetensors").read_bytes() == b"mine"
    assert not (sent / "rest.json").exists()


def test_a_run_made_again_here_owes_nothing_to_the_store(tmp_path: Path) -> None:
    here, record = made(tmp_path / "here")
    with_adapter(here, record)
    url = f"file://{tmp_path / 'bucket'}"
    Bucket(url, here).exchange([], [NAME])
    there = RunStore(tmp_path / "there")
    folder = there.folder(PLAN)
    Bucket(url, there).exchange([NAME], [])
    assert folder.rest.is_file()
    again = folder.attempt
    write_json(again.record, record)
    folder.publish(whole=True)
    fetch_rest(folder)
    assert not folder.rest.exists()
    assert not folder.adapter.exists()


def test_a_password_in_the_url_is_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a run comes whole, since the store could not be found again."""
    here, record = made(tmp_path / "here")
    with_adapter(here, record)
    url = f"file://{tmp_path / 'bucket'}"
    Bucket(url, here).exchange([], [NAME])
    there = RunStore(tmp_path / "there")
    bucket = Bucket(url, there)
    monkeypatch.setattr(bucket, "_url", "sftp://me:secret@host/bucket")
    bucket.exchange([NAME], [])
    assert there.folder(PLAN).adapter.is_dir()
    assert not any("secret" in path.read_text() for path in tmp_path.rglob("*.json"))


def test_the_adapter_of_another_machine_s_run_is_refused(tmp_path: Path) -> None:
    here, record = made(tmp_path / "here")
    weights = with_adapter(here, record)
    url = f"file://{tmp_path / 'bucket'}"
    Bucket(url, here).exchange([], [NAME])
    there = RunStore(tmp_path / "there")
    folder = there.folder(PLAN)
    sent = tmp_path / "bucket" / NAME / "adapter" / weights.name
    sent.write_bytes(b"theirs")
    Bucket(url, there).exchange([NAME], [])
    with pytest.raises(InvalidFile, match="its adapter is not that of its record"):
        fetch_rest(folder)
    assert not folder.adapter.exists()
    sent.write_bytes(b"mine")
    fetch_rest(folder)
    assert (folder.adapter / weights.name).read_bytes() == b"mine"


def test_what_another_machine_is_just_sending_is_no_file_of_the_run(tmp_path: Path) -> None:
    here, record = made(tmp_path / "here")
    with_adapter(here, record)
    url = f"file://{tmp_path / 'bucket'}"
    Bucket(url, here).exchange([], [NAME])
    passing = tmp_path / "bucket" / NAME / "record.json.part"
    passing.write_text("half of a rec")
    there = RunStore(tmp_path / "there")
    folder = there.folder(PLAN)
    Bucket(url, there).exchange([NAME], [])
    passing.unlink()
    rest = read_json(folder.rest, Rest)
    assert not [name for name in rest.files if name.endswith(".part")]
    older = rest.model_copy(update={"files": (*rest.files, passing.name)})
    write_json(folder.rest, older)  # as harnesses did before
    fetch_rest(folder)
    assert folder.adapter.is_dir()


def fetched_without_rest(tmp_path: Path) -> tuple[RunStore, Path]:
    """A run that another machine took from a first store, and the folder that it has there."""
    here, record = made(tmp_path / "here")
    with_adapter(here, record)
    url = f"file://{tmp_path / 'first'}"
    Bucket(url, here).exchange([], [NAME])
    there = RunStore(tmp_path / "there")
    Bucket(url, there).exchange([NAME], [])
    return there, tmp_path / "first" / NAME


@pytest.mark.parametrize("fault", ["altered", "removed", "no store"])
def test_a_run_whose_adapter_cannot_be_had_is_sent_without_it(tmp_path: Path, fault: str) -> None:
    """Before, a study ended at it, every time."""
    there, sent = fetched_without_rest(tmp_path)
    if fault == "altered":
        (sent / "adapter" / "adapter_model.safetensors").write_bytes(b"theirs")
    else:
        shutil.rmtree(sent if fault == "removed" else tmp_path / "first")
    said: list[str] = []
    second = Bucket(f"file://{tmp_path / 'second'}", there, said.append)
    second.exchange([], [NAME])
    second.exchange([], [NAME])
    assert len(said) == 1
    assert NAME in said[0]
    third = RunStore(tmp_path / "third")
    Bucket(f"file://{tmp_path / 'second'}", third).exchange([NAME], [])
    assert third.find(PLAN) == there.find(PLAN)
    assert list(third.folder(PLAN).items.iterdir())
    fetch_rest(third.folder(PLAN))


def test_a_run_that_was_removed_from_its_store_is_looked_for_there_once(tmp_path: Path) -> None:
    there, sent = fetched_without_rest(tmp_path)
    folder = there.folder(PLAN)
    shutil.rmtree(sent)
    with pytest.raises(StorageError, match="no longer in the store"):
        fetch_rest(folder)
    assert not folder.rest.exists()
    fetch_rest(folder)


def test_a_store_that_is_not_there_just_now_is_looked_into_again(tmp_path: Path) -> None:
    """Such as a disk that is not mounted."""
    there, _ = fetched_without_rest(tmp_path)
    folder = there.folder(PLAN)
    (tmp_path / "first").rename(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="cannot be used"):
        fetch_rest(folder)
    (tmp_path / "first").mkdir()
    with pytest.raises(StorageError, match="cannot be used"):
        fetch_rest(folder)
    (tmp_path / "first").rmdir()
    (tmp_path / "elsewhere").rename(tmp_path / "first")
    fetch_rest(folder)
    assert folder.adapter.is_dir()


def test_what_does_not_belong_there_is_refused(tmp_path: Path) -> None:
    here, _ = made(tmp_path / "here")
    url = f"file://{tmp_path / 'bucket'}"
    Bucket(url, here).exchange([], [NAME])
    other = PLAN.model_copy(update={"seed": 7})
    (tmp_path / "bucket" / NAME).rename(tmp_path / "bucket" / other.run_name)
    there = RunStore(tmp_path / "there")
    with pytest.raises(InvalidFile, match="it holds the run"):
        Bucket(url, there).exchange([other.run_name], [])
    (tmp_path / "bucket" / other.run_name).rename(tmp_path / "bucket" / NAME)
    (item,) = (tmp_path / "bucket" / NAME).rglob("*.parquet")
    item.unlink()
    with pytest.raises(InvalidFile, match="items are not those of its record"):
        Bucket(url, there).exchange([NAME], [])
    assert not list(there.root.rglob("record.json"))


def test_a_store_that_cannot_be_used_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--store nowhere://x") as caught:
        Bucket("nowhere://x", RunStore(tmp_path))
    assert "s3fs" in str(caught.value.hint)
    here, _ = made(tmp_path / "here")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match="cannot be used"):
        Bucket(f"file://{tmp_path}/file", here).exchange([], [NAME])
