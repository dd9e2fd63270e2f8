"""What a device, a model or a method cannot do as asked is replaced and said, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.spec.device import Device
from harness.spec.model import context_of
from harness.spec.plan import Plan
from harness.spec.planning import make_plan
from harness.spec.registry import build_variant, load_model, load_suite
from tests.architectures import POSITIONS, model_toml, tiny_config
from tests.planned import CPU, planned

GPU = Device(kind="cuda", name="Some GPU", memory_bytes=24 << 30, bfloat16=True)
SMALL = load_model("smollm2_135m_instruct")


def plan(
    adapter: dict[str, Any] | None = None,
    *,
    device: Device = CPU,
    positions: int = 2048,
    batch: int = 8,
    method: str = "adapter",
    **training: Any,
) -> Plan:
    """A plan of the quick suite, with what matters to a test set."""
    budget = {"steps": 2, "batch_size": batch}
    suite = load_suite("quick", {"budget": budget})
    written = {"description": "d", "training": training, "method": method}
    if method == "adapter":
        written["adapter"] = adapter or {"type": "LORA", "r": 4}
    config = {**SMALL.config, "max_position_embeddings": positions}
    variant = build_variant("v", written, suite, where="v.toml")
    return make_plan(variant, suite, SMALL.model_copy(update={"config": config}), 0, device)


def replaced(made: Plan) -> dict[str, tuple[object, object, str]]:
    return {item.key: (item.asked, item.used, item.reason) for item in made.substitutions}


PROMPT = {"type": "PROMPT_TUNING", "num_virtual_tokens": 20}
PREFIX = {"type": "PREFIX_TUNING", "num_virtual_tokens": 20}


# Length


def test_a_length_within_the_model_stays() -> None:
    made = plan(sequence_length=512, positions=512)
    assert made.training.sequence_length == 512
    assert "training.sequence_length" not in replaced(made)


@pytest.mark.parametrize("name", ["gpt2", "gptj", "codegen", "gpt_bigcode", "mpt", "llama", "opt"])
def test_the_context_is_the_model_s_whatever_it_calls_it(tmp_path: Path, name: str) -> None:
    """GPT-2 has no row for a later position, so a longer row would end in an IndexError."""
    path = model_toml(name, tmp_path / f"{name}.toml", tmp_path)
    made = planned("lora_bf16", f"model={path}", "training.sequence_length=512")
    assert made.training.sequence_length == POSITIONS
    assert replaced(made)["training.sequence_length"][:2] == (512, POSITIONS)
    assert context_of(tiny_config(name)) == POSITIONS


def test_what_balances_experts_is_left_out_of_the_loss_and_that_is_said(tmp_path: Path) -> None:
    path = model_toml("mixtral", tmp_path / "m.toml", tmp_path, output_router_logits=True)
    found = replaced(planned("lora_bf16", f"model={path}"))
    assert found["model.output_router_logits"][:2] == (True, False)
    assert "model.output_router_logits" not in replaced(planned("base", f"model={path}"))


def test_a_soft_prompt_takes_its_tokens_off_the_length_and_the_context() -> None:
    made = plan(PROMPT, sequence_length=512, positions=512)
    found = replaced(made)
    assert found["training.sequence_length"][:2] == (512, 492)
    assert "20 of them for virtual tokens" in found["training.sequence_length"][2]
    assert found["score.context"][:2] == (512, 492)


def test_a_soft_prompt_that_fills_the_model_is_refused_with_the_number() -> None:
    with pytest.raises(UserError, match="20 virtual tokens leave no room for text") as caught:
        plan(PROMPT, positions=20)
    assert "fewer than the 20 positions" in str(caught.value)
    assert "[adapter] of variant v" in str(caught.value)


# What a soft prompt cannot do


def test_packing_is_off_for_a_soft_prompt_and_stays_for_lora() -> None:
    made = plan(PROMPT, packing=True)
    assert made.training.packing is False
    assert "see each other" in replaced(made)["training.packing"][2]
    assert plan(packing=True).training.packing is True


def test_checkpointing_is_off_where_the_prompt_is_a_cache() -> None:
    assert plan(PREFIX, gradient_checkpointing=True).training.gradient_checkpointing is False
    assert plan(PROMPT, gradient_checkpointing=True).training.gradient_checkpointing is True


# Batches and devices


@pytest.mark.parametrize(
    ("batch", "devices", "micro", "used"),
    [(8, 1, 4, 4), (8, 1, 3, 2), (8, 1, 100, 8), (8, 2, 4, 4), (8, 2, 8, 4), (6, 2, 2, 1)],
)
def test_a_micro_batch_divides_what_each_device_gets(
    batch: int, devices: int, micro: int, used: int
) -> None:
    made = plan(device=GPU, batch=batch, devices=devices, micro_batch_size=micro)
    assert made.training.micro_batch_size == used
    found = replaced(made).get("training.micro_batch_size")
    assert (found is None) is (micro == used)
    if found is not None:
        assert ("a device's part" in found[2]) is (devices > 1)


def test_a_batch_that_cannot_be_divided_over_the_devices_is_refused() -> None:
    with pytest.raises(UserError, match="cannot be divided over 3 devices") as caught:
        plan(device=GPU, batch=8, devices=3)
    assert "a multiple of 3" in str(caught.value)


# Devices


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "paged_adamw_8bit"])
def test_an_optimizer_of_a_gpu_is_refused_on_a_cpu_with_what_to_use(optimizer: str) -> None:
    assert plan(device=GPU, optimizer=optimizer).training.optimizer == optimizer
    with pytest.raises(UserError, match=f"optimizer {optimizer} needs a GPU") as caught:
        plan(optimizer=optimizer)
    assert "adamw" in str(caught.value)


def test_activations_go_to_the_host_only_on_a_gpu_with_checkpointing() -> None:
    whole = {"activation_offload": True, "gradient_checkpointing": True, "speed": "fast"}
    assert plan(device=GPU, **whole).training.activation_offload is True
    made = plan(device=GPU, **{**whole, "gradient_checkpointing": False})
    assert made.training.activation_offload is False
    assert "training.activation_offload" in replaced(made)
    assert plan(**whole).training.activation_offload is False


def test_an_untrained_reference_has_no_training_settings_at_all() -> None:
    made = plan(method="none", packing=True, sequence_length=4096, micro_batch_size=3)
    assert (made.budget.steps, made.training.packing, made.adapter) == (0, False, None)
    assert not [key for key in replaced(made) if key.startswith("training")]
