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


def test_what_the_suite_decides_is_told_and_the_rest_is_taken(tmp_path: Path) -> None:
    """An experiment of PEFT's comparison as it lies there, its defaults two folders above."""
    defaults = {
        "model_id": "meta-llama/Llama-3.2-3B", "dtype": "bfloat16", "max_seq_length": 768,
        "batch_size": 4, "batch_size_eval": 51, "max_steps": 5000, "eval_steps": 250,
        "compile": False, "seed": 0, "grad_norm_clip": 1.0, "use_amp": False, "use_gc": True,
        "optimizer_kwargs": {"lr": 1e-4, "weight_decay": 0.1}, "lr_scheduler": "cosine",
        "attn_implementation": None, "generation_kwargs": {"max_length": 768},
        "query_template": "Question: {query}", "autocast_adapter_dtype": False,
    }  # fmt: skip
    folder = tmp_path / "comparison" / "experiments" / "lora" / "mine"
    folder.mkdir(parents=True)
    (tmp_path / "comparison" / "default_training_params.json").write_text(json.dumps(defaults))
    own = {"optimizer_type": "lora-fa", "optimizer_kwargs": {"lr": 3e-4, "r": 4, "lora_alpha": 8}}
    write(folder, {"peft_type": "LORA", "r": 4, "lora_alpha": 8}, own)
    plan = planned(str(folder))
    found = plan.training
    assert (found.optimizer, found.learning_rate, found.schedule) == ("lorafa", 3e-4, "cosine")
    assert (found.sequence_length, found.gradient_checkpointing) == (768, True)
    told = {item.key: (item.asked, item.used) for item in plan.substitutions}
    assert told["max_steps"] == (5000, plan.budget.steps)
    assert told["model_id"] == ("meta-llama/Llama-3.2-3B", plan.model.name)
    assert told["warmup"] == ("a tenth of the steps", 0)
    assert "seed" not in told, "it is the same here"
    (others,) = [key for key in told if "query_template" in key]
    assert others == "batch_size_eval, compile, eval_steps, generation_kwargs, query_template"


@pytest.mark.parametrize(
    ("dtype", "quantization", "compute"),
    [("int8", "int8", None), ("int4", "fp4", "float32"), ("float16", "none", "float16")],
)
def test_a_dtype_of_peft_is_a_base_of_ours(
    tmp_path: Path, dtype: str, quantization: str, compute: str | None
) -> None:
    write(tmp_path / "exp", {"peft_type": "LORA"}, {"dtype": dtype})
    variant = load_variant(str(tmp_path / "exp"), load_suite("quick"))
    assert variant.quantization.type == quantization
    assert compute is None or variant.precision.compute == compute


def test_the_shape_of_another_base_is_not_the_prompts(tmp_path: Path) -> None:
    shape = {"token_dim": 3072, "num_layers": 28, "num_attention_heads": 24}
    write(tmp_path / "exp", {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 7, **shape})
    adapter = load_variant(str(tmp_path / "exp"), load_suite("quick")).adapter
    assert adapter is not None
    assert adapter.fields == {"num_virtual_tokens": 7}


@pytest.mark.parametrize(
    "training",
    [
        {"use_amp": True},
        {"optimizer_kwargs": {"lr": 1e-4, "betas": [0.9, 0.95]}},
        {"optimizer_kwargs": {"lr": 1e-4, "r": 99}},
        {"optimizer_type": "riemannian"},
    ],
)
def test_what_would_train_otherwise_is_refused_by_name(tmp_path: Path, training: dict) -> None:
    write(tmp_path / "exp", {"peft_type": "LORA", "r": 8}, training)
    with pytest.raises(InvalidFile, match="has no place in a variant") as caught:
        planned(str(tmp_path / "exp"))
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
