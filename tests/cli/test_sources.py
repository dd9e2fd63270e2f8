"""`--model` and `--data` take what a user has: a folder, a file, a name on the hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli.sources import with_sources
from harness.errors import UserError
from harness.spec.overrides import parse_settings
from tests.cli.terminal import in_process, refused, shown
from tests.hub import COMMIT, serving
from tests.weights.tiny_llama import write_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as transformers saves it."""
    return write_folder(tmp_path_factory.mktemp("own") / "my-model")


def chats(path: Path, count: int = 24) -> Path:
    """Chat JSONL: what most people have."""
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"Where does otter {index} sleep?"},
                {"role": "assistant", "content": f"Below bridge {7 * index}."},
            ]
        }
        for index in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_model_folder_and_a_chat_file_are_all_that_a_plan_needs(
    model: Path, tmp_path: Path
) -> None:
    data = chats(tmp_path / "chat.jsonl")
    own = ("--model", str(model), "--data", str(data))
    found = json.loads(shown("plan", "-v", "qlora_nf4", *own, "--json", "--device", "cpu"))
    assert found["model"]["name"] == "my-model"
    assert found["model"]["config"]["hidden_size"] == 64
    assert found["request"]["settings"] == [f"model={model}", f"corpus.source={data}"]
    text = shown("corpus", *own, "--samples", "1")
    assert "Below bridge" in text
    assert "my-model" in shown("show", str(model))


def test_what_is_on_the_hub_is_pinned_to_the_commit_found_and_later_needs_no_network(
    model: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "README.md").write_text("conversations")
    command = ["plan", "-v", "base", "--json", "--device", "cpu"]
    command += ["--model", "me/tiny", "--data", "me/chats"]
    env = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    with serving({"me/tiny": model, "me/chats": data}) as address:
        online = in_process(*command, HF_ENDPOINT=address, **env)
        missing = in_process("plan", "-v", "base", "--model", "me/tinny",
                             HF_ENDPOINT=address, **env)  # fmt: skip
    assert online.code == 0, online.stderr
    found = json.loads(online.stdout)
    assert found["model"]["source"] == {
        "kind": "hub", "repository": "me/tiny", "revision": COMMIT
    }  # fmt: skip
    assert found["model"]["name"] == "tiny"
    assert found["corpus"]["source"] == f"hub:me/chats@{COMMIT}"
    assert found["request"]["settings"][0] == f"model=me/tiny@{COMMIT}"
    assert "Fetching" not in online.stderr
    assert missing.code == 2
    assert "the hub has no model me/tinny, and there is no such file or folder" in missing.stderr
    offline = in_process(*command, **{**env, "HF_HUB_OFFLINE": "1"})
    assert json.loads(offline.stdout) == found


def test_a_path_that_looks_like_a_number_stays_a_path() -> None:
    suite = parse_settings(with_sources([], model="./1", data="2024"))[1]
    assert suite == {"model": "./1", "corpus": {"source": "2024"}}


def test_the_same_thing_said_twice_is_refused(model: Path) -> None:
    with pytest.raises(UserError, match=r"--model and --set suite\.model=phi2"):
        with_sources(["suite.model=phi2"], model=str(model))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "nowhere"), "unknown model 'nowhere'"),
        (("--model", "nowhere.toml"), "no such model file: nowhere.toml"),
        (("--data", "nowhere.jsonl"), "no such corpus"),
        (("--data", "nowhere/chat.jsonl"), "no such corpus"),
    ],
)
def test_what_is_not_there_is_said(arguments: tuple[str, str], words: str) -> None:
    assert words in refused("plan", "-v", "base", "--device", "cpu", *arguments)


@pytest.mark.parametrize(
    "typed",
    [
        ("plan", "-v", "base", "--data", "./chta.jsonl"),
        ("plan", "-v", "base", "--model", "modle"),
        ("plan", "-v", "base", "--model", "my.tml.toml"),
        ("plan", "-v", "myvar.toml"),
        ("plan", "-v", "base", "--task", "mytask.yaml"),
        ("plan", "-v", "base", "--task", "x", "--include-path", "task"),
    ],
)
def test_a_mistyped_path_is_answered_with_the_one_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model", "tasks"):
        Path(name).mkdir()
    for name in ("chat.jsonl", "my_var.toml", "my_task.yaml", "my.toml"):
        Path(name).touch()
    message = refused(*typed, "--device", "cpu")
    offered = {"chat.jsonl", "model", "tasks", "my_var.toml", "my_task.yaml", "my.toml"}
    assert any(f"did you mean {name}" in message for name in offered), message
