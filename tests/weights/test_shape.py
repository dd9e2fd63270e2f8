"""Parameters are counted from shapes alone, and agree with published figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InvalidFile, UserError
from harness.spec.model import Model
from harness.spec.registry import load_model, model_names
from harness.spec.schema import parse
from harness.spec.variant import Adapter, Quantization
from harness.weights.adapter import attach_adapter
from harness.weights.load import load_base
from harness.weights.shape import count_parameters, meta_model, transformers_config
from tests.planned import planned
from tests.weights.tiny_llama import write_model_file


def lora(rank: int, target: object) -> Adapter:
    fields = {"type": "LORA", "r": rank, "target_modules": target}
    return parse(Adapter, fields, where="x")


@pytest.mark.parametrize(
    ("model", "adapter", "trainable", "total"),
    [
        ("falcon_7b", lora(32, ["query_key_value"]), 9_437_184, 6_931_162_432),
        ("gpt_neox_20b", lora(8, ["query_key_value"]), 8_650_752, 20_563_218_432),
        ("phi2", lora(16, "all-linear"), 23_592_960, None),
    ],
)
def test_published_counts_are_reproduced(
    model: str, adapter: Adapter, trainable: int, total: int | None
) -> None:
    count = count_parameters(load_model(model), "adapter", adapter)
    assert count.trainable == trainable
    assert total is None or count.total == total


@pytest.mark.parametrize("variant", ["base", "lora_bf16", "qlora_nf4_r4", "full_finetune"])
def test_the_count_agrees_with_the_loaded_model(
    tmp_path: Path, tiny_llama: Path, variant: str
) -> None:
    model_file = write_model_file(tmp_path / "tiny.toml", tiny_llama)
    plan = planned(variant, f"model={model_file}", "quantization.type=none")
    model = attach_adapter(load_base(plan, tiny_llama), plan)
    count = count_parameters(plan.model, plan.method, plan.adapter)
    assert count.total == sum(item.numel() for item in model.parameters())
    trainable = sum(item.numel() for item in model.parameters() if item.requires_grad)
    expected = 0 if variant == "base" else trainable
    assert count.trainable == expected


def test_quantizable_weights_are_all_linear_layers_but_the_output_head() -> None:
    nf4 = Quantization(type="nf4")
    count = count_parameters(load_model("smollm2_135m_instruct"), "none", None, nf4)
    layer = 2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536
    assert (count.modules, count.quantized) == (7 * 30, 30 * layer)
    assert count.linear == count.quantized
    assert count.total == 134_515_008


def test_the_meta_model_takes_no_memory() -> None:
    model = meta_model(load_model("gpt_neox_20b"))
    assert {item.device.type for item in model.parameters()} == {"meta"}


@pytest.mark.parametrize("name", model_names())
def test_transformers_accepts_every_registered_shape(name: str) -> None:
    model = load_model(name)
    config = transformers_config(model)
    assert config.model_type == model.config["model_type"]


def model_of(config: dict) -> Model:
    source = {"kind": "folder", "path": "x"}
    data = {"name": "m", "description": "d", "license": "MIT", "source": source, "config": config}
    return parse(Model, data, where="m.toml")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, "states no shape"),
        ({"model_type": "lama"}, "does not accept"),
        ({"model_type": "llama", "hidden_size": "wide"}, "does not accept"),
        ({"model_type": "llama", "hidden_sise": 64}, "hidden_sise"),
    ],
)
def test_a_shape_that_transformers_does_not_accept_is_refused(config: dict, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        transformers_config(model_of(config))
    assert "[config]" in str(caught.value)


def test_a_target_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidFile, match="query_key_value") as caught:
        count_parameters(load_model("phi2"), "adapter", lora(8, ["query_key_value"]))
    assert "[adapter]" in str(caught.value)
