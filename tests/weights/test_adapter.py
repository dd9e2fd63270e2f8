"""Any PEFT method works without code here, checked against PEFT's own configuration class."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InvalidFile, UnknownName
from harness.spec.plan import Plan
from harness.spec.schema import parse
from harness.spec.variant import Adapter
from harness.weights.adapter import attach_adapter
from harness.weights.load import load_base
from harness.weights.wrapping import adapter_config
from tests.planned import planned
from tests.weights.tiny_llama import write_model_file


def adapter(**fields: object) -> Adapter:
    return parse(Adapter, fields, where="x.toml")


@pytest.fixture
def model_file(tmp_path: Path, tiny_llama: Path) -> Path:
    return write_model_file(tmp_path / "tiny.toml", tiny_llama)


def attached(plan: Plan, folder: Path) -> dict:
    """Trainable parameters by name, after attaching the plan's adapter to its base."""
    model = attach_adapter(load_base(plan, folder), plan)
    return {name: item for name, item in model.named_parameters() if item.requires_grad}


# Configuration


def test_fields_reach_pefts_own_class() -> None:
    from peft import LoraConfig

    config = adapter_config(adapter(type="LORA", r=8, lora_alpha=16, use_rslora=True))
    assert isinstance(config, LoraConfig)
    assert (config.r, config.lora_alpha, config.use_rslora) == (8, 16, True)
    assert config.task_type == "CAUSAL_LM"


def test_an_unknown_type_gets_its_close_matches() -> None:
    with pytest.raises(UnknownName, match="unknown adapter type 'LORAA'") as caught:
        adapter_config(adapter(type="LORAA"))
    assert "did you mean LORA" in str(caught.value)
    assert "[adapter] type" in str(caught.value)


def test_an_unknown_field_gets_its_close_matches() -> None:
    with pytest.raises(UnknownName, match="unknown LORA adapter field 'lora_alfa'") as caught:
        adapter_config(adapter(type="LORA", lora_alfa=16))
    assert "lora_alpha" in str(caught.value)


def test_a_field_of_another_type_is_unknown() -> None:
    with pytest.raises(UnknownName, match="unknown IA3 adapter field 'r'"):
        adapter_config(adapter(type="IA3", r=8))


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "LORA", "bias": "sometimes"},
        {"type": "LORA", "r": "eight"},
        {"type": "LORA", "lora_dropout": "none"},
        {"type": "LORA", "use_rslora": "yes"},
        {"type": "IA3", "target_modules": ["q_proj"], "feedforward_modules": ["down_proj"]},
    ],
)
def test_a_value_that_peft_cannot_use_is_refused(fields: dict) -> None:
    with pytest.raises(InvalidFile) as caught:
        adapter_config(adapter(**fields))
    assert "[adapter]" in str(caught.value)


@pytest.mark.parametrize("name", ["task_type", "peft_type", "inference_mode"])
def test_fields_that_the_harness_decides_cannot_be_set(name: str) -> None:
    with pytest.raises(UnknownName, match=name):
        adapter_config(adapter(type="LORA", **{name: "SEQ_CLS"}))


def test_a_value_written_as_a_pattern_in_peft_is_accepted() -> None:
    config = adapter_config(adapter(type="LORA", init_lora_weights="pissa_niter_4"))
    assert config.init_lora_weights == "pissa_niter_4"


# Attaching


@pytest.mark.parametrize("setting", ["adapter.r=0", 'adapter.target_modules=["no_such_layer"]'])
def test_an_adapter_that_does_not_fit_the_model_is_the_users_to_mend(
    model_file: Path, tiny_llama: Path, setting: str
) -> None:
    plan = planned("lora_bf16", f"model={model_file}", setting)
    with pytest.raises(InvalidFile, match="does not fit the model") as caught:
        attached(plan, tiny_llama)
    assert "[adapter]" in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        ("adapter.type=IA3", 'adapter.target_modules=["k_proj", "down_proj"]'),
        ("adapter.type=LOHA", "adapter.r=4", 'adapter.target_modules=["q_proj", "v_proj"]'),
        ("adapter.type=LOKR", "adapter.r=4", 'adapter.target_modules=["q_proj"]'),
        ("adapter.type=LORA", "adapter.use_dora=true"),
        ("adapter.type=VERA", "adapter.r=4", 'adapter.target_modules=["q_proj"]'),
    ],
)
def test_methods_other_than_lora_need_no_code(
    model_file: Path, tiny_llama: Path, settings: tuple[str, ...]
) -> None:
    written = model_file.with_name("mine.toml")
    kind = settings[0].partition("=")[2]
    written.write_text(f'description = "mine"\nadapter = {{ type = "{kind}" }}\n')
    plan = planned(str(written), f"model={model_file}", *settings)
    assert plan.adapter is not None
    assert plan.adapter.type == kind
    trainable = attached(plan, tiny_llama)
    assert trainable
    assert all(str(item.dtype) == "torch.float32" for item in trainable.values())


def test_an_adapter_is_the_same_on_every_base(model_file: Path, tiny_llama: Path) -> None:
    names = ("lora_bf16", "qlora_nf4", "qlora_nf4_dq", "qlora_fp4", "lora_int8")
    found = [attached(planned(name, f"model={model_file}"), tiny_llama) for name in names]
    assert all(set(other) == set(found[0]) for other in found)
    assert all(found[0][name].equal(other[name]) for other in found for name in other)


def test_an_adapter_comes_from_the_plans_seed(model_file: Path, tiny_llama: Path) -> None:
    import torch

    def of(seed: int) -> dict:
        torch.rand(seed + 7)  # whatever was drawn before must not matter
        return attached(planned("qlora_nf4", f"model={model_file}", seed=seed), tiny_llama)

    first, again, other = of(0), of(0), of(1)
    assert all(first[name].equal(again[name]) for name in first)
    assert any(not first[name].equal(other[name]) for name in first)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_are_stored_as_planned(model_file: Path, tiny_llama: Path, dtype: str) -> None:
    from harness.spec.device import Device

    fast = Device(kind="cpu", name="CPU with bfloat16", bfloat16=True, threads=1)
    settings = (f"model={model_file}", f"precision.trainable={dtype}")
    plan = planned("qlora_nf4", *settings, device=fast)
    trainable = attached(plan, tiny_llama)
    assert {str(item.dtype) for item in trainable.values()} == {f"torch.{dtype}"}


def test_lora_on_all_linear_layers_leaves_the_output_head_alone(
    model_file: Path, tiny_llama: Path
) -> None:
    trainable = attached(planned("qlora_nf4", f"model={model_file}"), tiny_llama)
    assert len(trainable) == 2 * 7 * 2  # layers × linear layers × (A, B)
    assert not any("lm_head" in name or "embed" in name for name in trainable)


def test_full_fine_tuning_trains_everything(model_file: Path, tiny_llama: Path) -> None:
    plan = planned("full_finetune", f"model={model_file}")
    model = attach_adapter(load_base(plan, tiny_llama), plan)
    assert all(item.requires_grad for item in model.parameters())


def test_an_untrained_reference_trains_nothing(model_file: Path, tiny_llama: Path) -> None:
    assert attached(planned("base_nf4", f"model={model_file}"), tiny_llama) == {}
