"""A file in the hub's cache is what the hub sent, or is fetched again, or refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import FetchError
from harness.records.events import Silence
from harness.spec.model import HubSource
from harness.weights.hub import hub_snapshot, is_blob
from tests.hub import COMMIT, serving
from tests.weights.tiny_llama import write_folder

SOURCE = HubSource(kind="hub", repository="me/tiny", revision=COMMIT)


class Said(Silence):
    """Remembers notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("own") / "tiny")


@pytest.fixture
def snapshot(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The model in a hub's cache of its own, while the hub can be reached."""
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
    with serving({"me/tiny": model}) as address:
        monkeypatch.setattr(f"{constants}.ENDPOINT", address)
        url = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", url)
        yield hub_snapshot(SOURCE, Silence())


def flip(path: Path, place: int = -100) -> None:
    """Flip one bit of the blob, as a disk would: its size stays."""
    blob = path.resolve()
    data = bytearray(blob.read_bytes())
    data[place] ^= 1
    blob.write_bytes(data)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_file_that_changed_in_the_cache_is_fetched_again_and_that_is_said(
    snapshot: Path, model: Path, name: str
) -> None:
    wanted = (model / name).read_bytes()
    flip(snapshot / name)
    assert (snapshot / name).read_bytes() != wanted
    said = Said()
    again = hub_snapshot(SOURCE, said)
    assert (again / name).read_bytes() == wanted
    assert said.notes[-1] == f"fetched again: {name}, which has changed in the hub's cache"


def test_a_damaged_file_that_cannot_be_fetched_again_is_refused(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(snapshot / "model.safetensors", place=-1)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FetchError, match="the cache is damaged") as caught:
        hub_snapshot(SOURCE, Silence())
    assert str((snapshot / "model.safetensors").resolve()) in str(caught.value)


@pytest.mark.parametrize("kind", ["sha256", "git"])
def test_blobs_are_known_by_either_of_the_hubs_digests(tmp_path: Path, kind: str) -> None:
    data = b"some weights" * 999
    names = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "git": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
    }
    blob = tmp_path / names[kind]
    blob.write_bytes(data)
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    assert is_blob(link)
    flip(link, place=len(data) // 2)
    assert not is_blob(link)


def test_a_file_without_a_blobs_name_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert is_blob(tmp_path / "config.json")
