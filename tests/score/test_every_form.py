"""Forms are apart, the same model is scored once, and each is set against the model as trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from harness.errors import RunError
from harness.forms.make import Parts
from harness.forms.merging import merge
from harness.quantize.bitsandbytes import keep_as_quantized
from harness.records.events import Silence
from harness.score.every_form import take_every_form
from harness.spec.plan import Plan
from harness.spec.suite import ScoreSpec
from harness.spec.variant import Quantization
from tests.score.conftest import make_model, make_score_plan

SPEC = ScoreSpec(forms=("training", "16bit", "merged"), held_out_tokens=200, generations=1,
                 max_new_tokens=2)  # fmt: skip
EVERY = ScoreSpec(
    forms=("adapter", "merged", "merged_dequantized", "nf4_again", "gguf:Q8_0", "gguf:Q4_0"),
    held_out_tokens=100,
)
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


def parts_of(plan: Plan, source: Path) -> Callable[[Path], Parts]:
    return lambda adapter: Parts(plan, source, adapter)


def values_of(found: Any, metric: str = "perplexity") -> dict[str, float]:
    return {s.precision: s.value for s in found.scores if s.metric == metric}


def test_an_adapter_on_4_bits_is_scored_three_ways(
    subject: Any, model_folder: Path, tmp_path: Path
) -> None:
    plan = make_score_plan(SPEC, NF4)
    built = replace(subject(SPEC, adapted(quantized(model_folder))), plan=plan)
    parts = parts_of(plan, model_folder)
    found = take_every_form(built, "after", tmp_path, Silence(), parts)
    values = values_of(found)
    assert set(values) == {"training", "16bit", "merged"}
    assert values["training"] != pytest.approx(values["16bit"], rel=1e-5)
    assert values["16bit"] == pytest.approx(values["merged"], rel=1e-6)
    assert len({s.items for s in found.scores}) == len(found.scores)
    assert len(found.generations) == 1
    assert not list(tmp_path.glob(".form*")), "what was written to be scored is cleared away"


def test_every_form_is_set_against_the_model_as_trained(
    subject: Any, model_folder: Path, tmp_path: Path
) -> None:
    plan = make_score_plan(EVERY, NF4)
    built = replace(subject(EVERY, adapted(quantized(model_folder))), plan=plan)
    parts = parts_of(plan, model_folder)
    found = take_every_form(built, "after", tmp_path, Silence(), parts)
    distance = values_of(found, "kl_divergence")
    same = values_of(found, "same_top_token")
    forms = {"merged", "merged_dequantized", "merged_4bit", "gguf:Q8_0", "gguf:Q4_0"}
    assert set(distance) == set(same) == forms
    assert set(values_of(found)) == {"training", *forms}
    assert distance["merged_dequantized"] < 1e-6
    assert distance["merged"] > 1e-4
    assert abs(distance["gguf:Q8_0"] - distance["merged"]) < 0.2 * distance["merged"]
    assert distance["gguf:Q4_0"] > distance["gguf:Q8_0"]
    assert same["merged_dequantized"] == 1 > same["gguf:Q4_0"]
    details = {s.precision: s.details for s in found.scores if s.metric == "kl_divergence"}
    assert details["gguf:Q4_0"]["bytes"] < details["gguf:Q8_0"]["bytes"]
    assert details["merged_4bit"]["bytes"] < details["merged"]["bytes"]
    assert details["merged"]["tokens_per_second"] > 0
    assert details["merged"]["load_seconds"] > 0
    assert details["gguf:Q8_0"]["tokens_per_second"] is None, "llama.cpp would run it"
    assert (tmp_path / "items" / "fidelity.kl_divergence.after.gguf%3AQ8_0.parquet").is_file()


def test_forms_of_full_fine_tuning_are_made_of_the_trained_weights(
    subject: Any, model_folder: Path, tmp_path: Path
) -> None:
    spec = ScoreSpec(forms=("adapter", "merged", "int4_again", "gguf:Q8_0"), held_out_tokens=100)
    plan = make_score_plan(spec).model_copy(update={"method": "full", "adapter": None})
    built = replace(subject(spec, make_model(1)), plan=plan)  # not the model that was fetched
    found = take_every_form(built, "after", tmp_path, Silence(), parts_of(plan, model_folder))
    values, distance = values_of(found), values_of(found, "kl_divergence")
    assert values["merged"] == values["training"], "nothing to merge"
    assert values["gguf:Q8_0"] == pytest.approx(values["training"], rel=0.01)
    assert set(distance) == {"int4_again", "gguf:Q8_0"}
    assert distance["gguf:Q8_0"] < distance["int4_again"] < 0.5


def test_a_form_that_is_not_what_was_trained_is_told(
    subject: Any, model_folder: Path, tmp_path: Path
) -> None:
    class Heard(Silence):
        notes: ClassVar[list[str]] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    spec = EVERY.model_copy(update={"forms": ("merged_dequantized", "gguf:Q4_0")})
    plan = make_score_plan(spec, NF4)
    built = replace(subject(spec, adapted(quantized(model_folder))), plan=plan)
    take_every_form(built, "after", tmp_path, Heard(), parts_of(plan, model_folder))
    loud = [note for note in Heard.notes if "is not what was trained" in note]
    assert len(loud) == 1
    assert loud[0].startswith("gguf:Q4_0 ")


@torch.inference_mode()
def test_divergence_is_that_of_the_definition(model: Any) -> None:
    import numpy as np

    from harness.corpus.tokens import TokenSequence
    from harness.score.fidelity import FormPair, compare

    def conversation(name: str, length: int, scored: list[int]) -> TokenSequence:
        mask = np.zeros(length, np.bool_)
        mask[scored] = True
        return TokenSequence(name, "t", np.arange(length, dtype=np.int32) % 90, mask)

    asked = [
        conversation("a", 20, [3, 4, 19]),
        conversation("b", 31, [7]),
        conversation("c", 5, []),
    ]
    other = make_model(1)
    found = compare(FormPair(model, other, 64), asked)
    for sequence, compared in zip(asked, found, strict=True):
        ids = torch.from_numpy(sequence.input_ids.astype(np.int64))[None]
        p, q = (m(input_ids=ids).logits[0].double().softmax(-1) for m in (model, other))
        before = np.flatnonzero(sequence.loss_mask) - 1
        divergence = (p * (p / q).log()).sum(-1)[before]
        gap = float((p.log() - q.log())[before].abs().max()) if len(before) else 0.0
        assert compared.tokens == len(before)
        assert compared.divergence == pytest.approx(float(divergence.sum()), rel=1e-4)
        assert compared.same_top == int((p.argmax(-1) == q.argmax(-1))[before].sum())
        assert compared.largest == pytest.approx(gap, rel=1e-4)
    assert max(one.divergence for one in compare(FormPair(model, model, 64), asked)) < 1e-6


def test_on_an_unquantized_base_16_bits_is_the_trained_model(
    subject: Any, model_folder: Path, tmp_path: Path
) -> None:
    built = subject(SPEC, adapted(make_model()))
    parts = parts_of(built.plan, model_folder)
    found = take_every_form(built, "after", tmp_path, Silence(), parts)
    values = values_of(found)
    assert values["training"] == values["16bit"]
    assert values["merged"] == pytest.approx(values["training"], rel=1e-4)
    (copied,) = [s for s in found.scores if s.precision == "16bit" and s.metric == "perplexity"]
    assert copied.details["same_model_as"] == "training"


def test_merging_into_4_bits_is_refused(model_folder: Path) -> None:
    with pytest.raises(RunError, match="never merged into quantized"):
        merge(adapted(quantized(model_folder)), form="merged")


def test_the_base_in_16_bits_has_no_adapter(
    subject: Any, model_folder: Path, tmp_path: Path
) -> None:
    plan = make_score_plan(SPEC, NF4)
    built = replace(subject(SPEC, quantized(model_folder)), plan=plan)
    parts = parts_of(plan, model_folder)
    found = take_every_form(built, "before", tmp_path, Silence(), parts)
    values = values_of(found)
    assert values["16bit"] == values["merged"] != values["training"]
