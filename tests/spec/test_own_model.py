"""A model folder needs no TOML: its config.json is the shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from harness.errors import FetchError, UserError
from harness.spec.model import FolderSource
from harness.spec.own_model import hub_folder
from harness.spec.registry import find, load_model
from tests.planned import planned

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "torch_dtype": "bfloat16",
    "transformers_version": "5.0",
    "_name_or_path": "/somewhere",
}


def write(folder: Path, *, template: bool = True, **changes: Any) -> Path:
    """The small files of a model."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    (folder / "model.safetensors").write_bytes(b"")
    settings = {"chat_template": "{{ messages }}"} if template else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_the_folder_names_the_model_and_its_config_is_the_shape(tmp_path: Path) -> None:
    folder = write(tmp_path / "my model, v2")
    model = load_model(str(folder))
    assert model.name == "my-model-v2"
    assert model.source == FolderSource(kind="folder", path=str(folder))
    assert model.config["hidden_size"] == 64
    assert not {"architectures", "torch_dtype", "_name_or_path"} & set(model.config)
    assert model.chat_template is None
    assert find(str(folder), "quick") == model


def test_what_the_tokenizer_lacks_is_said(tmp_path: Path) -> None:
    bare = planned("base", f"model={write(tmp_path / 'bare', template=False)}")
    assert bare.model.chat_template == "chatml"
    (said,) = [item for item in bare.substitutions if item.key == "model.chat_template"]
    assert "brings no chat template" in said.reason
    whole = planned("base", f"model={write(tmp_path / 'whole')}")
    assert not [item for item in whole.substitutions if item.key.startswith("model")]
    jinja = write(tmp_path / "jinja", template=False)
    (jinja / "chat_template.jinja").write_text("{{ messages }}")
    assert load_model(str(jinja)).chat_template is None


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "not a model folder"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a JSON file"),
        (lambda folder: (folder / "config.json").write_text("{}"), "no model_type"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
        (
            lambda folder: (folder / "config.json").write_text(
                json.dumps(CONFIG | {"quantization_config": {"bits": 4}})
            ),
            "quantized already",
        ),
        (
            lambda folder: (folder / "config.json").rename(folder / "adapter_config.json"),
            "holds an adapter",
        ),
    ],
)
def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, spoil: Any, words: str) -> None:
    folder = write(tmp_path / "model")
    spoil(folder)
    with pytest.raises(UserError, match=words) as caught:
        load_model(str(folder))
    assert str(folder) in str(caught.value)


def test_a_hub_id_without_a_commit_is_refused_where_it_is_written_down() -> None:
    with pytest.raises(UserError, match="pinned to a commit"):
        load_model("someone/something")


def test_a_file_of_a_model_folder_is_answered_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="a file, where a model's folder is expected") as caught:
        load_model(str(tmp_path / "model.safetensors"))
    assert caught.value.hint == f"give the folder: {tmp_path}"


def test_a_misspelt_folder_that_looks_like_a_hub_id_is_answered_with_its_neighbour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "qwen3").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FetchError) as caught:
        hub_folder("models/qwen4", None, "model")
    assert caught.value.hint == "did you mean models/qwen3?"
