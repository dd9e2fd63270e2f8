"""The census counts what is loaded, and refuses what was not planned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig

from harness.errors import CensusError
from harness.records.record import Census
from harness.spec.device import Device
from harness.spec.plan import Plan
from harness.spec.planning import make_plan
from harness.spec.registry import load_model, load_suite, load_variant
from harness.weights.adapter import attach_adapter
from harness.weights.census import check_census, take_census
from harness.weights.shape import ParameterCount

CPU = Device(kind="cpu", name="Plain CPU", memory_bytes=24 << 30, bfloat16=False, threads=2)
SHAPE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 320}
LINEAR = 2 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 256 * 512)
EMBEDDING = 320 * 256
NORMS = 5 * 256


def planned(variant: str) -> Plan:
    suite = load_suite("quick")
    model = load_model("smollm2_135m_instruct")
    return make_plan(load_variant(variant, suite), suite, model, 0, CPU)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE, **HEADS, tie_word_embeddings=request.param)
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return path, EMBEDDING * (1 if request.param else 2)


def load(path: Any, **quantization: Any) -> Any:
    config = BitsAndBytesConfig(**quantization) if quantization else None
    return AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, quantization_config=config, device_map={"": "cpu"}
    )


def four_bits(path: Any, kind: str = "nf4", *, double: bool = False) -> Any:
    return load(
        path,
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=torch.float32,
    )


def quantized_bits(census: Census) -> float:
    (row,) = [row for row in census.rows if row.quantization != "none"]
    assert row.elements == LINEAR
    return 8 * row.bytes / row.elements


def test_an_unquantized_model_counts_each_parameter_once(folder: Any) -> None:
    path, embeddings = folder
    census = take_census(load(path))
    assert census.total == LINEAR + embeddings + NORMS
    assert census.weight_bytes == 4 * census.total
    assert census.compute_dtype is None


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_four_bit_weights_are_four_and_a_half_bits_and_double_saves_0_373(
    folder: Any, kind: str
) -> None:
    path, embeddings = folder
    plain, double = (take_census(four_bits(path, kind, double=d)) for d in (False, True))
    assert {row.quantization for row in plain.rows} == {"none", kind}
    assert {row.quantization for row in double.rows} == {"none", f"{kind}+dq"}
    assert quantized_bits(plain) == 4.5
    # the offsets of double quantization: 4 bytes for each of the small weights here
    offsets = 8 * 4 * 14 / LINEAR
    assert quantized_bits(plain) - quantized_bits(double) + offsets == pytest.approx(
        0.373, abs=0.001
    )
    assert plain.total == double.total == LINEAR + embeddings + NORMS
    assert plain.compute_dtype == "float32"


@pytest.mark.parametrize("width", [1024, 2048])
def test_double_quantization_saves_0_373_bits_on_weights_of_usual_size(width: int) -> None:
    from bitsandbytes.nn import Linear4bit

    torch.manual_seed(0)
    censuses = []
    for double in (False, True):
        layer = Linear4bit(
            width, width, bias=False, compress_statistics=double, quant_type="nf4"
        ).to("cpu")
        censuses.append(take_census(nn.Sequential(layer)))
    plain, double_ = (8 * census.weight_bytes / census.total for census in censuses)
    assert plain == 4.5
    assert plain - double_ == pytest.approx(0.373, abs=0.001)


def test_int8_counts_the_same_before_and_after_the_first_forward_pass(folder: Any) -> None:
    path, embeddings = folder
    model = load(path, load_in_8bit=True)
    before = take_census(model)
    with torch.no_grad():
        model(input_ids=torch.arange(8)[None])
    after = take_census(model)
    assert before == after
    (row,) = [row for row in after.rows if row.quantization == "int8"]
    assert row.elements == LINEAR
    rows = 2 * (256 + 128 + 128 + 256 + 512 + 512 + 256)
    assert row.bytes == LINEAR + 4 * rows  # a float32 scale for each output row
    assert after.total == LINEAR + embeddings + NORMS


@pytest.mark.parametrize("variant", ["lora_bf16", "qlora_nf4", "qlora_nf4_dq", "qlora_fp4"])
def test_the_planned_model_passes(folder: Any, variant: str) -> None:
    plan = planned(variant)
    model = attach_adapter(as_planned(folder[0], plan), plan)
    census = take_census(model)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert census.trainable == trainable > 0
    check_census(census, plan, counts_of(census, trainable=trainable))


def as_planned(path: Any, plan: Plan) -> Any:
    if plan.quantization.type == "none":
        return load(path)
    return four_bits(path, plan.quantization.type, double=plan.quantization.double)


def counts_of(census: Census, **changes: int) -> ParameterCount:
    """What a plan would expect that is carried out as in ``census``."""
    quantized = sum(row.elements for row in census.rows if row.quantization != "none")
    found = ParameterCount(census.total, census.trainable, LINEAR, quantized, 0, 14, 0)
    return replace(found, **changes)


def refused(census: Census, plan: Plan, counts: ParameterCount | None = None) -> str:
    with pytest.raises(CensusError) as caught:
        check_census(census, plan, counts)
    return caught.value.what


def test_another_quantization_fails(folder: Any) -> None:
    path, _ = folder
    plan = planned("base_nf4_dq")
    assert "nf4" in refused(take_census(four_bits(path)), plan)
    assert "fp4+dq" in refused(take_census(four_bits(path, "fp4", double=True)), plan)
    assert "none" in refused(take_census(load(path)), plan)


def test_one_layer_quantized_otherwise_fails(folder: Any) -> None:
    model = four_bits(folder[0])
    other = four_bits(folder[0], "fp4")
    model.model.layers[0].mlp.up_proj = other.model.layers[0].mlp.up_proj
    assert "fp4" in refused(take_census(model), planned("base_nf4"))


def test_a_layer_left_unquantized_fails(folder: Any) -> None:
    plan = planned("base_nf4")
    model = four_bits(folder[0])
    counts = counts_of(take_census(model), quantized=LINEAR)
    check_census(take_census(model), plan, counts)
    model.model.layers[0].mlp.up_proj = load(folder[0]).model.layers[0].mlp.up_proj
    assert f"planned {LINEAR:,}" in refused(take_census(model), plan, counts)


def test_another_compute_dtype_fails(folder: Any) -> None:
    model = four_bits(folder[0])
    model.model.layers[1].self_attn.q_proj.compute_dtype = torch.bfloat16
    assert "compute dtype bfloat16+float32" in refused(take_census(model), planned("base_nf4"))


def test_an_adapter_in_another_dtype_fails(folder: Any) -> None:
    plan = planned("lora_bf16")
    model = attach_adapter(load(folder[0]), plan)
    one = next(p for p in model.parameters() if p.requires_grad)
    one.data = one.data.to(torch.bfloat16)
    assert "bfloat16" in refused(take_census(model), plan)


def test_another_number_of_trainable_parameters_fails(folder: Any) -> None:
    plan = planned("lora_bf16")
    model = attach_adapter(load(folder[0]), plan)
    counts = counts_of(take_census(model))
    next(p for p in model.parameters() if p.requires_grad).requires_grad_(False)
    assert f"planned {counts.trainable:,}" in refused(take_census(model), plan, counts)


def test_another_number_of_parameters_fails_for_references_too(folder: Any) -> None:
    plan = planned("base_nf4")
    census = take_census(four_bits(folder[0]))
    counts = counts_of(census)
    check_census(census, plan, counts)
    more = replace(counts, total=counts.total + 1)
    assert f"planned {more.total:,}" in refused(census, plan, more)
