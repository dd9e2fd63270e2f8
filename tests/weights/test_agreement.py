"""Weights, configuration, tokenizer and model TOML that are not of one model are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from harness.errors import InvalidFile, UserError
from harness.spec.registry import load_model
from harness.weights.agreement import check_tokens
from harness.weights.load import load_base, load_tokenizer
from tests.planned import planned
from tests.weights.tiny_llama import write_model_file

UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def folder(tmp_path: Path, tiny_llama: Path) -> Path:
    """A copy of the tiny llama that a test may damage."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def edit_weights(folder: Path, change: Callable[[dict], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refused(folder: Path, variant: str = "base", *settings: str, **toml: object) -> str:
    """What is said of loading ``folder``; ``toml`` changes fields of the model TOML's config."""
    path = write_model_file(folder.parent / "tiny.toml", folder)
    text = path.read_text()
    for key, value in toml.items():
        lines = [line for line in text.splitlines() if not line.startswith(f"{key} = ")]
        text = "\n".join([*lines, f"{key} = {json.dumps(value)}"])
    path.write_text(text)
    plan = planned(variant, f"model={path}", *settings)
    with pytest.raises(InvalidFile) as caught:
        load_base(plan, folder)
    assert isinstance(caught.value, UserError)
    return str(caught.value)


@pytest.mark.parametrize("variant", ["base", "lora_bf16", "qlora_nf4", "lora_int8"])
def test_a_missing_matrix_is_named(folder: Path, variant: str) -> None:
    edit_weights(folder, lambda weights: weights.pop(UP))
    message = refused(folder, variant)
    assert f"missing from the files: {UP}" in message
    assert str(folder) in message


@pytest.mark.parametrize(
    "name",
    ["model.norm.weight", "model.embed_tokens.weight", "model.layers.0.mlp.gate_proj.weight"],
)
def test_any_other_missing_weight_is_named_too(folder: Path, name: str) -> None:
    edit_weights(folder, lambda weights: weights.pop(name))
    assert name in refused(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index = {name: f"model-0000{1 + (name == UP)}-of-00002.safetensors" for name in weights}
    first = {name: weights[name] for name in weights if name != UP}
    save_file(first, folder / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    assert "model-00002-of-00002.safetensors" in refused(folder)


def test_a_layer_more_in_the_configuration_is_missing_from_the_files(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=3)
    assert "model.layers.2." in refused(folder, num_hidden_layers=3)


def test_a_layer_less_in_the_configuration_leaves_weights_over(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=1)
    message = refused(folder, num_hidden_layers=1)
    assert "in the files but not in the model: model.layers.1." in message


def test_a_weight_of_another_shape_is_named_with_both(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.update({UP: weights[UP][:-1].contiguous()}))
    assert f"{UP} 127×64, not 128×64" in refused(folder)


def test_a_wider_configuration_than_the_weights_names_them(folder: Path) -> None:
    edit_config(folder, intermediate_size=160)
    assert "of another shape: model.layers.0.mlp.down_proj" in refused(
        folder, intermediate_size=160
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_hidden_layers", 3),
        ("intermediate_size", 96),
        ("rms_norm_eps", 0.5),
        ("tie_word_embeddings", False),
        ("hidden_act", "gelu"),
        ("model_type", "mistral"),
    ],
)
def test_a_model_file_that_states_another_value_than_the_folder_is_refused(
    folder: Path, field: str, value: object
) -> None:
    message = refused(folder, **{field: value})
    assert f"{field} = {value!r}" in message
    assert str(folder / "config.json") in message


def test_a_shape_that_follows_from_what_is_not_stated_is_compared_too(folder: Path) -> None:
    """No field differs: only the folder states this one."""
    edit_config(folder, attention_bias=True)
    assert "self_attn.q_proj.bias is not planned" in refused(folder)


def test_floats_need_not_have_the_same_last_digit(folder: Path) -> None:
    edit_config(folder, rms_norm_eps=9.999999974752427e-07)
    path = write_model_file(folder.parent / "tiny.toml", folder)
    path.write_text(path.read_text() + "rms_norm_eps = 1e-6\n")
    assert load_base(planned("base", f"model={path}"), folder) is not None


# Tokens


@pytest.mark.parametrize(
    ("token", "added", "hint"), [(260, "0", "added_tokens = 1"), (262, "1", "added_tokens = 3")]
)
def test_a_token_without_a_row_in_the_embedding_is_refused(
    folder: Path, token: int, added: str, hint: str
) -> None:
    model = load_model(str(write_model_file(folder.parent / "t.toml", folder, added_tokens=added)))
    check_tokens(model, folder, {"padding": token - 1 if token == 260 else 260})
    with pytest.raises(InvalidFile, match=f"padding has id {token}") as caught:
        check_tokens(model, folder, {"padding": token, "end of turn": 2})
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("tokenizer.json", ('": 7,', '": -7,'), "the tokenizer: "),
        ("config.json", ('"hidden_size": 64', '"hidden_size": 66'), "not a multiple"),
        ("tokenizer_config.json", ("{", "["), "the tokenizer"),
        ("tokenizer.json", ('"merges": [', '"merges": [7,'), "the tokenizer: "),
    ],
)
def test_a_damaged_file_of_the_folder_is_a_mistake_and_not_a_crash(
    folder: Path, name: str, change: tuple[str, str], said: str
) -> None:
    path = folder / name
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change, 1))
    with pytest.raises(InvalidFile, match="transformers cannot load") as caught:
        load_tokenizer(folder)
    assert said in str(caught.value)
    assert str(folder) in str(caught.value)
