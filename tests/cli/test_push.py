"""What goes to the hub is listed first; an upload is one commit, and the token is kept nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.hub import TOKEN, hub
from tests.cli.terminal import in_process, refused, shown
from tests.forms.tiny_results import Tiny, make_plan, make_result

ONLINE = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A finished run of LoRA on a random llama."""
    folder = tmp_path_factory.mktemp("tiny")
    return make_result(folder, make_plan(folder))


def test_a_dry_run_lists_what_would_go_and_asks_nobody(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        text = shown("push", str(tiny.run.folder.path), "--to", "someone/tiny")
        assert server.asked == []
    for name in ("README.md", "adapter_config.json", WEIGHTS, "tokenizer.json"):
        assert name in text
    assert "dry run: " in text
    assert "would be uploaded to someone/tiny" in text


def test_an_upload_is_one_commit_of_those_files(tiny: Tiny, tmp_path: Path) -> None:
    """In a process of its own: the client reads its settings when it is imported."""
    with hub() as server:
        settings = {
            **ONLINE,
            "HF_ENDPOINT": server.address,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(tmp_path),
        }
        run = str(tiny.run.folder.path)
        done = in_process("push", run, "--to", "someone/tiny", "--yes", **settings)
        assert done.code == 0, done.stdout + done.stderr
        assert server.commits == 1
        assert server.repositories["someone/tiny"]["visibility"] == "private"
        assert server.files[WEIGHTS] == (tiny.run.folder.adapter / WEIGHTS).read_bytes()
        assert server.files["README.md"].startswith(b"---\n")
        for name, content in server.files.items():
            assert name in done.stdout
            assert TOKEN.encode() not in content
    assert TOKEN not in done.stdout + done.stderr
    kept = [path for folder in (tmp_path, tiny.root) for path in folder.rglob("*")]
    assert not [path for path in kept if path.is_file() and TOKEN.encode() in path.read_bytes()]


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token, and a client that was told so before it was imported, as outside of tests."""
    import huggingface_hub

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()


def test_a_refusal_of_the_hub_is_explained_without_the_token(
    tiny: Tiny, online: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub() as server:
        server.refuses = True
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        run = str(tiny.run.folder.path)
        message = refused("push", run, "--to", "someone/tiny", "--yes", code=1)
    assert "the upload failed" in message
    assert "403" in message
    assert TOKEN not in message
    assert server.commits == 0
    assert server.files == {}


def test_a_hub_that_is_not_there_is_explained(
    tiny: Tiny, online: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub() as server:
        gone = server.address
    monkeypatch.setenv("HF_ENDPOINT", gone)
    message = refused("push", str(tiny.run.folder.path), "--to", "a/b", "--yes", code=1)
    assert "the upload failed" in message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--to", "nobody"], "owner/name"),
        (["--to", "a/b/c"], "is not a repository name"),
        (["--to", "a/b", "--yes"], "HF_TOKEN"),
        (["--to", "a/b", "--form", "melted"], "unknown form 'melted'"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_made(
    options: list[str], said: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert said in refused("push", str(tiny.run.folder.path), *options)
