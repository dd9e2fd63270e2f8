"""Quantized bases of many architectures: what is planned is what is loaded, to the byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InvalidFile
from harness.spec.plan import Plan
from harness.weights.adapter import attach_adapter
from harness.weights.census import check_census, take_census
from harness.weights.load import load_base
from harness.weights.shape import count_parameters, count_plan
from tests.architectures import ARCHITECTURES, model_toml, save_architecture
from tests.planned import planned

# LoRA does not fit these (Mamba's layers), so references stand for them.
UNADAPTED = {"mamba2"}


def saved(name: str, variant: str, folder: Path) -> Plan:
    save_architecture(name, folder)
    return planned(variant, f"model={model_toml(name, folder / 'model.toml', folder)}")


@pytest.mark.parametrize("variant", ["base", "base_nf4", "base_nf4_dq"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_reference_is_loaded_as_planned(name: str, variant: str, tmp_path: Path) -> None:
    plan = saved(name, variant, tmp_path)
    counts = count_parameters(plan.model, "none", None, plan.quantization)
    census = take_census(load_base(plan, tmp_path))
    check_census(census, plan, counts)
    found = sum(row.bytes for row in census.rows if row.quantization != "none")
    assert found == counts.quantized_bytes
    assert bool(found) == (variant != "base")


@pytest.mark.parametrize("variant", ["qlora_nf4", "lora_int8"])
@pytest.mark.parametrize("name", ["falcon", "gpt2", "gpt_neox", "gpt_bigcode", "phi", "mixtral"])
def test_layers_of_other_classes_than_torchs_are_quantized_and_adapted(
    name: str, variant: str, tmp_path: Path
) -> None:
    import torch

    plan = saved(name, variant, tmp_path)
    model = attach_adapter(load_base(plan, tmp_path), plan)
    check_census(take_census(model), plan, count_plan(plan))
    loss = model(input_ids=torch.arange(3, 40)[None], labels=torch.arange(3, 40)[None]).loss
    loss.backward()
    assert all(item.grad is not None for item in model.parameters() if item.requires_grad)


def test_falcon_in_four_bits_is_close_to_falcon(tmp_path: Path) -> None:
    """Its layers are quantized with their own weights and biases, the right way round."""
    import torch

    for name in ("falcon", "gpt2"):
        folder = tmp_path / name
        plain = saved(name, "base", folder)
        quantized = planned("base_nf4", f"model={folder / 'model.toml'}")
        ids = torch.arange(3, 40)[None]
        with torch.no_grad():
            exact, near = (load_base(plan, folder)(ids).logits for plan in (plain, quantized))
        assert 0 < float((exact - near).norm() / exact.norm()) < 0.25


def test_a_model_without_layers_to_quantize_is_refused_when_planned(tmp_path: Path) -> None:
    plan = saved("llama", "base_nf4", tmp_path)
    empty = {**plan.model.config, "num_hidden_layers": 0}
    model = plan.model.model_copy(update={"config": empty})
    with pytest.raises(InvalidFile, match="nf4 finds no layer"):
        count_parameters(model, "none", None, plan.quantization)
