"""The base is loaded in exactly the planned quantization, dtype and place."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InvalidFile
from harness.spec.plan import Plan
from harness.spec.variant import Quantization
from harness.weights.load import load_base, load_tokenizer
from tests.planned import CPU, planned
from tests.weights.tiny_llama import write_model_file

FAST_CPU = CPU.model_copy(update={"bfloat16": True})


@pytest.fixture
def model_file(tmp_path: Path, tiny_llama: Path) -> Path:
    return write_model_file(tmp_path / "tiny.toml", tiny_llama)


def linears(model: object) -> list:
    """Every linear layer that can be quantized."""
    from torch import nn

    found = model.named_modules()  # type: ignore[attr-defined]
    return [item for name, item in found if isinstance(item, nn.Linear) and name != "lm_head"]


@pytest.mark.parametrize(
    ("variant", "kind", "double"),
    [
        ("qlora_nf4", "nf4", False),
        ("qlora_nf4_dq", "nf4", True),
        ("qlora_fp4", "fp4", False),
        ("qlora_fp4_dq", "fp4", True),
    ],
)
def test_four_bits_are_of_the_planned_type_on_every_linear_layer(
    model_file: Path, tiny_llama: Path, variant: str, kind: str, double: bool
) -> None:
    import torch
    from bitsandbytes.nn import Linear4bit

    model = load_base(planned(variant, f"model={model_file}"), tiny_llama)
    found = linears(model)
    assert len(found) == 14
    for layer in found:
        assert isinstance(layer, Linear4bit)
        assert layer.weight.dtype == torch.uint8
        assert layer.weight.quant_state.quant_type == kind
        assert layer.weight.quant_state.nested is double
        assert layer.compute_dtype == torch.float32
    assert model.lm_head.weight.dtype == torch.float32


def test_eight_bits_are_integers(model_file: Path, tiny_llama: Path) -> None:
    import torch
    from bitsandbytes.nn import Linear8bitLt

    model = load_base(planned("lora_int8", f"model={model_file}"), tiny_llama)
    assert all(isinstance(layer, Linear8bitLt) for layer in linears(model))
    assert all(layer.weight.dtype == torch.int8 for layer in linears(model))


@pytest.mark.parametrize(
    ("variant", "device", "dtype"),
    [
        ("lora_bf16", CPU, "float32"),
        ("lora_bf16", FAST_CPU, "bfloat16"),
        ("full_finetune", FAST_CPU, "float32"),
    ],
)
def test_an_unquantized_base_has_the_planned_dtype(
    model_file: Path, tiny_llama: Path, variant: str, device: object, dtype: str
) -> None:
    plan = planned(variant, f"model={model_file}", device=device)  # type: ignore[arg-type]
    model = load_base(plan, tiny_llama)
    assert {str(item.dtype) for item in model.parameters()} == {f"torch.{dtype}"}


@pytest.mark.parametrize("variant", ["base", "qlora_nf4", "qlora_nf4_dq", "qlora_fp4", "lora_int8"])
def test_every_base_answers_with_finite_logits_and_is_not_in_training_mode(
    model_file: Path, tiny_llama: Path, variant: str
) -> None:
    import torch

    model = load_base(planned(variant, f"model={model_file}"), tiny_llama)
    assert not model.training
    with torch.inference_mode():
        logits = model(torch.arange(16)[None]).logits
    assert logits.shape == (1, 16, 260)
    assert torch.isfinite(logits).all()


def test_scoring_leaves_four_bits_as_they_were_quantized(
    model_file: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On AVX512-BF16 bitsandbytes would repack the weights in place in the first forward pass."""
    import torch

    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    model = load_base(planned("qlora_nf4_dq", f"model={model_file}"), tiny_llama)
    before = [layer.weight.data.clone() for layer in linears(model)]
    with torch.inference_mode():
        model(torch.arange(16)[None])
    for layer, weight in zip(linears(model), before, strict=True):
        assert torch.equal(layer.weight.data, weight)
        assert layer.weight.quant_state.nested
        assert layer.weight.quant_state.dtype == torch.float32


def test_another_quantization_than_the_planned_one_can_be_asked_for(
    model_file: Path, tiny_llama: Path
) -> None:
    import torch

    plan = planned("qlora_nf4", f"model={model_file}")
    model = load_base(plan, tiny_llama, Quantization())
    assert all(layer.weight.dtype == torch.float32 for layer in linears(model))


def test_added_tokens_have_the_same_rows_whenever_they_are_loaded(
    tmp_path: Path, tiny_llama: Path
) -> None:
    """A trained adapter is loaded on the base again; on other rows it is another model."""
    import torch

    model_file = write_model_file(tmp_path / "tiny.toml", tiny_llama, added_tokens="2")
    plan = planned("lora_bf16", f"suite.model={model_file}")
    rows = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        model = load_base(plan, tiny_llama)
        assert torch.equal(torch.get_rng_state(), state), "loading draws no random numbers"
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            rows.append(layer.weight[-2:].clone())
            assert torch.allclose(rows[-1][0].float(), layer.weight[:-2].float().mean(0), atol=1e-3)
    assert torch.equal(rows[0], rows[2])
    assert torch.equal(rows[1], rows[3])


def test_added_tokens_grow_the_embedding(tmp_path: Path, tiny_llama: Path) -> None:
    model_file = write_model_file(tmp_path / "tiny.toml", tiny_llama, added_tokens="1")
    model = load_base(planned("base", f"model={model_file}"), tiny_llama)
    assert model.get_input_embeddings().weight.shape[0] == 261


def broken(plan: Plan, folder: Path) -> str:
    with pytest.raises(InvalidFile) as caught:
        load_base(plan, folder)
    return str(caught.value)


def test_a_folder_that_transformers_cannot_read_is_named(
    tmp_path: Path, tiny_llama: Path, model_file: Path
) -> None:
    plan = planned("base", f"model={model_file}")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "no_such_model"}')
    assert str(folder) in broken(plan, folder)
    (folder / "config.json").write_bytes((tiny_llama / "config.json").read_bytes())
    assert str(folder) in broken(plan, folder)
    weights = (tiny_llama / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert str(folder) in broken(plan, folder)


def test_the_tokenizer_brings_its_chat_template(tiny_llama: Path) -> None:
    tokenizer = load_tokenizer(tiny_llama)
    assert "<|im_start|>" in tokenizer.chat_template
    assert tokenizer.decode(tokenizer("this and that")["input_ids"]) == "this and that"


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="tokenizer") as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(caught.value)
