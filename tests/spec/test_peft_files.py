"""PEFT's own adapter_config.json is a variant, and so is an experiment of its comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import InvalidFile, UserError
from harness.spec.registry import load_suite, load_variant
from tests.planned import planned


def write(folder: Path, config: object, training: object = None) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(config))
    if training is not None:
        (folder / "training_params.json").write_text(json.dumps(training))
    return path


def test_what_peft_saves_is_the_variant_that_it_was_made_from(tmp_path: Path) -> None:
    from peft import LoHaConfig

    folder = tmp_path / "loha-r4"
    LoHaConfig(r=4, alpha=7, target_modules=["q_proj"], task_type="CAUSAL_LM").save_pretrained(
        folder
    )
    for name in (folder, folder / "adapter_config.json"):
        plan = planned(str(name))
        assert plan.variant == "loha-r4"
        assert plan.adapter is not None
        assert plan.adapter.type == "LOHA"
        assert plan.adapter.fields["r"] == 4
        assert plan.adapter.fields["alpha"] == 7


def test_a_lora_of_peft_is_not_given_the_harness_defaults_where_it_says_otherwise(
    tmp_path: Path,
) -> None:
    from peft import LoraConfig

    LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]).save_pretrained(tmp_path / "mine")
    adapter = load_variant(str(tmp_path / "mine"), load_suite("quick")).adapter
    assert adapter is not None
    assert (adapter.fields["r"], adapter.fields["lora_alpha"]) == (8, 8)
    assert adapter.fields["target_modules"] == ["q_proj"]


def test_what_a_written_config_leaves_out_is_pefts_default(tmp_path: Path) -> None:
    from harness.weights.wrapping import adapter_config

    write(tmp_path / "mine", {"peft_type": "LORA", "r": 4})
    adapter = load_variant(str(tmp_path / "mine"), load_suite("quick")).adapter
    assert adapter is not None
    config = adapter_config(adapter)
    assert (config.r, config.lora_alpha, config.target_modules) == (4, 8, None)


def test_an_experiments_settings_are_the_variants(tmp_path: Path) -> None:
    training: dict[str, Any] = {
        "optimizer_type": "lora+",
        "optimizer_kwargs": {"lr": 5e-4, "weight_decay": 0.1},
        "max_seq_length": 300,
        "lr_scheduler": "cosine",
    }
    write(tmp_path / "exp", {"peft_type": "LORA", "r": 4}, training)
    found = planned(str(tmp_path / "exp")).training
    assert (found.optimizer, found.learning_rate, found.weight_decay) == ("loraplus", 5e-4, 0.1)
    assert (found.sequence_length, found.schedule) == (300, "cosine")


@pytest.mark.parametrize(
    ("training", "said"),
    [({"max_steps": 7}, "set budget.steps"), ({"compile": True}, "compile = True has no place")],
)
def test_what_has_no_place_in_a_variant_is_refused_by_name(
    tmp_path: Path, training: dict, said: str
) -> None:
    write(tmp_path / "exp", {"peft_type": "LORA"}, training)
    with pytest.raises(InvalidFile) as caught:
        planned(str(tmp_path / "exp"))
    assert said in str(caught.value)
    assert "training_params.json" in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"peft_type": 3}'])
def test_what_is_no_adapter_config_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(text)
    with pytest.raises(InvalidFile, match=r"adapter_config\.json"):
        planned(str(path))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    from harness.errors import StorageError

    with pytest.raises((UserError, StorageError)):
        planned(str(tmp_path / "none" / "adapter_config.json"))
