"""The fast log-likelihoods are the model's own, whatever its structure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from harness.errors import DivergedError
from harness.quantize.bitsandbytes import keep_as_quantized
from harness.records.events import Silence
from harness.score.body import SplitBody, WholeBody
from harness.score.likelihood import Likelihood, Query
from tests.score.conftest import WORDS, make_model


def queries() -> list[Query]:
    """A preamble with twelve questions of four endings, a lone text, a repeat."""
    random = np.random.default_rng(0)
    preamble = random.integers(0, WORDS, 150)
    found = []
    for question in range(12):
        stem = np.concatenate([preamble, random.integers(0, WORDS, 20)])
        for _ in range(4):
            tokens = np.concatenate([stem, random.integers(0, WORDS, 1 + 4 * (question % 2))])
            found.append(Query(tokens, np.arange(len(stem), len(tokens))))
    lone = random.integers(0, WORDS, 70)
    found.append(Query(lone, np.array([1, 2, 30, 69])))
    return [*found, found[0]]


def expected(model: Any, query: Query) -> tuple[Any, Any]:
    ids = torch.tensor(query.tokens)[None, :-1]
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, -ids.shape[1] :].float()
    targets = torch.tensor(query.tokens[query.targets])
    rows = torch.tensor(query.targets - 1)
    chosen = logits.log_softmax(-1)[rows, targets]
    return chosen.numpy(), (logits[rows].argmax(-1) == targets).numpy()


def check(model: Any, kind: type) -> Likelihood:
    likelihood = Likelihood(model, 64, Silence())
    assert isinstance(likelihood._body, kind)
    for query, answer in zip(queries(), likelihood.answer(queries()), strict=True):
        log_probs, greedy = expected(model, query)
        np.testing.assert_allclose(answer.log_probs, log_probs, atol=1e-4)
        assert (answer.greedy == greedy).all()
    return likelihood


def of_type(kind: str, **extra: Any) -> Any:
    shape = {"model_type": kind, "tie_word_embeddings": False, **extra}
    return make_model(**shape)


def test_llama_runs_each_prefix_once() -> None:
    likelihood = check(make_model(), SplitBody)
    asked = sum(len(query.tokens) for query in queries())
    assert likelihood.computed_tokens < asked / 8


@pytest.mark.parametrize("kind", ["phi", "qwen2", "gpt_neox", "mistral"])
def test_other_decoders(kind: str) -> None:
    check(of_type(kind, **({"num_key_value_heads": 4} if kind == "phi" else {})), SplitBody)


def test_capped_logits_and_sliding_windows_are_noticed() -> None:
    check(of_type("gemma2", head_dim=8, sliding_window=16), WholeBody)


def test_lora_inside_the_model() -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    check(get_peft_model(make_model(), config).eval(), SplitBody)


def test_soft_prompts_run_whole() -> None:
    from peft import PromptTuningConfig, get_peft_model

    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    check(get_peft_model(make_model(), config).eval(), WholeBody)


def test_four_bit_base(model_folder: Any) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    model = AutoModelForCausalLM.from_pretrained(
        model_folder, quantization_config=settings, dtype=torch.float32, device_map={"": "cpu"}
    )
    keep_as_quantized(model)
    check(model.eval(), SplitBody)


def test_nan_is_divergence() -> None:
    model = make_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(DivergedError):
        Likelihood(model, 64, Silence()).answer(queries())
