"""Precisions are apart, the same model is scored once, and merging never meets 4-bit weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import RunError
from harness.quantize.bitsandbytes import keep_as_quantized
from harness.records.events import Silence
from harness.score.precision import take_every_precision
from harness.spec.suite import ScoreSpec
from harness.spec.variant import Quantization
from tests.score.conftest import make_model, make_score_plan

SPEC = ScoreSpec(precisions=("training", "16bit", "merged"), held_out_tokens=200, generations=1,
                 max_new_tokens=2)  # fmt: skip
NF4 = Quantization(type="nf4")


def quantized(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=settings, dtype=torch.float32, device_map={"": "cpu"}
    )
    keep_as_quantized(model)
    return model.eval()


def adapted(model: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(
        r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config).eval()


def perplexities(found: Any) -> dict[str, float]:
    return {s.precision: s.value for s in found.scores if s.metric == "perplexity"}


def test_an_adapter_on_4_bits_is_scored_three_ways(
    subject: Any, model_folder: Path, tmp_path: Path
) -> None:
    built = replace(
        subject(SPEC, adapted(quantized(model_folder))), plan=make_score_plan(SPEC, NF4)
    )
    asked: list[Quantization] = []

    def load(quantization: Quantization) -> Any:
        asked.append(quantization)
        return make_model()

    found = take_every_precision(built, "after", tmp_path, Silence(), load)
    values = perplexities(found)
    assert set(values) == {"training", "16bit", "merged"}
    assert values["training"] != pytest.approx(values["16bit"], rel=1e-5)
    assert values["16bit"] == pytest.approx(values["merged"], rel=1e-6)
    assert asked == [Quantization(), Quantization()]
    assert len({s.items for s in found.scores}) == len(found.scores)
    assert len(found.generations) == 1


def test_on_an_unquantized_base_16_bits_is_the_trained_model(subject: Any, tmp_path: Path) -> None:
    built = subject(SPEC, adapted(make_model()))
    found = take_every_precision(built, "after", tmp_path, Silence(), lambda _: make_model())
    values = perplexities(found)
    assert values["training"] == values["16bit"]
    assert values["merged"] == pytest.approx(values["training"], rel=1e-4)
    (copied,) = [s for s in found.scores if s.precision == "16bit" and s.metric == "perplexity"]
    assert copied.details["same_model_as"] == "training"


def test_merging_into_4_bits_is_refused(subject: Any, model_folder: Path, tmp_path: Path) -> None:
    spec = ScoreSpec(precisions=("merged",), held_out_tokens=200)
    built = subject(spec, adapted(make_model()))
    with pytest.raises(RunError, match="never merged into quantized"):
        take_every_precision(built, "after", tmp_path, Silence(), lambda _: quantized(model_folder))


def test_the_base_in_16_bits_has_no_adapter(
    subject: Any, model_folder: Path, tmp_path: Path
) -> None:
    built = replace(subject(SPEC, quantized(model_folder)), plan=make_score_plan(SPEC, NF4))
    found = take_every_precision(built, "before", tmp_path, Silence(), lambda _: make_model())
    values = perplexities(found)
    assert values["16bit"] == values["merged"] != values["training"]
