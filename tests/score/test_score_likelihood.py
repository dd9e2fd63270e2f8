"""The fast log-likelihoods are the model's own, whatever its structure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from harness.errors import DivergedError
from harness.quantize.bitsandbytes import keep_as_quantized
from harness.records.events import Silence
from harness.score.body import RowsBody, TreeBody, WholeBody, _read_logits
from harness.score.engine import FastLM, PlainLM
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


def check(model: Any, kind: Any) -> Likelihood:
    likelihood = Likelihood(model, 64, Silence())
    assert likelihood.details["passes"] == kind.way
    for query, answer in zip(queries(), likelihood.answer(queries()), strict=True):
        log_probs, greedy = expected(model, query)
        np.testing.assert_allclose(answer.log_probs, log_probs, atol=1e-4)
        assert (answer.greedy == greedy).all()
    return likelihood


def of_type(kind: str, **extra: Any) -> Any:
    shape = {"model_type": kind, "tie_word_embeddings": False, **extra}
    return make_model(**shape)


def test_llama_runs_each_prefix_once() -> None:
    likelihood = check(make_model(), TreeBody)
    asked = sum(len(query.tokens) for query in queries())
    assert likelihood.computed_tokens < asked / 8


@pytest.mark.parametrize("kind", ["phi", "qwen2", "gpt_neox", "mistral"])
def test_other_decoders(kind: str) -> None:
    check(of_type(kind, **({"num_key_value_heads": 4} if kind == "phi" else {})), TreeBody)


def test_capped_logits_and_sliding_windows_are_the_model_s_own() -> None:
    check(of_type("gemma2", head_dim=8, sliding_window=16, final_logit_softcapping=5.0), TreeBody)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_windows_under_each_kind_of_mask(attention: str) -> None:
    model = of_type("qwen2", use_sliding_window=True, sliding_window=16, max_window_layers=1)
    model.set_attn_implementation(attention)
    check(model, TreeBody)


def test_masks_of_other_passes_are_left_alone() -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    check(make_model(), TreeBody)
    assert ALL_MASK_ATTENTION_FUNCTIONS["sdpa"] is AttentionMaskInterface()["sdpa"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_pass_over_one_sequence_is_compared_with_no_other(dtype: torch.dtype) -> None:
    model = make_model().to(dtype)
    likelihood = Likelihood(model, 64, Silence())
    tokens = np.random.default_rng(0).integers(0, WORDS, 150)
    query = Query(tokens, np.arange(1, 150))
    (answer,) = likelihood.answer([query])
    assert likelihood.computed_tokens == len(tokens) - 1
    log_probs, greedy = expected(model, query)
    if dtype == torch.float32:  # of 16 bits a few words at the top are equal
        assert (answer.greedy == greedy).all()
    np.testing.assert_allclose(answer.log_probs, log_probs, atol=1e-4)


def test_of_equal_logits_the_first_is_the_likeliest() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 0.0], [2.0, -1.0, 0.5, 2.0]], dtype=torch.bfloat16)
    rows, targets = torch.tensor([0, 0, 1, 1]), torch.tensor([1, 2, 0, 3])
    greedy = _read_logits(logits, rows, targets)[1]
    assert greedy.tolist() == [True, False, True, False]


def test_a_structure_that_shows_at_length_only_is_noticed() -> None:
    from transformers import LlamaForCausalLM

    class Stretched(LlamaForCausalLM):
        """Divides its logits in sequences of over 100 tokens, as some models scale attention."""

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            if kwargs["input_ids"].shape[1] > 100:
                output.logits = output.logits / 2
            return output

    model = make_model()
    model.__class__ = Stretched
    likelihood = Likelihood(model, 64, Silence())
    assert likelihood.details == {"passes": TreeBody.way}
    for query, answer in zip(queries(), likelihood.answer(queries()), strict=True):
        np.testing.assert_allclose(answer.log_probs, expected(model, query)[0], atol=1e-4)
    assert likelihood.details["passes"] == WholeBody.way
    assert "at 175 tokens" in str(likelihood.details["passes_reason"])


def test_frequencies_that_grow_with_the_sequence_are_those_of_each_one() -> None:
    rope = {"rope_type": "dynamic", "factor": 8.0, "rope_theta": 10000.0}
    asked = queries()

    def fresh() -> Any:
        return make_model(rope_parameters=rope, max_position_embeddings=100)

    likelihood = Likelihood(fresh(), 64, Silence())
    for query, answer in zip(asked, likelihood.answer(asked), strict=True):
        np.testing.assert_allclose(answer.log_probs, expected(fresh(), query)[0], atol=1e-4)
    assert "depend on their length" in str(likelihood.details["passes_reason"])


def test_sixteen_bits_share_prefixes_too() -> None:
    model = make_model().to(torch.bfloat16)
    likelihood = Likelihood(model, 64, Silence())
    likelihood.answer(queries())
    assert likelihood.details == {"passes": TreeBody.way}


def test_lora_inside_the_model() -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    check(get_peft_model(make_model(), config).eval(), TreeBody)


@pytest.mark.parametrize("kind", ["PromptTuning", "PrefixTuning", "PromptEncoder"])
def test_a_trained_soft_prompt_is_part_of_the_score(kind: str) -> None:
    import peft

    base = make_model()
    before = Likelihood(base, 64, Silence()).answer(queries())
    settings = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 5, "encoder_hidden_size": 16}
    settings = settings if kind == "PromptEncoder" else {**settings, "encoder_hidden_size": None}
    settings = {key: value for key, value in settings.items() if value is not None}
    config = getattr(peft, f"{kind}Config")(**settings)
    model = peft.get_peft_model(base, config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "prompt_encoder" in name:
                parameter.add_(torch.randn_like(parameter))
    check(model, RowsBody)
    after = Likelihood(model, 64, Silence()).answer(queries())
    moved = (abs(a.log_probs - b.log_probs).max() for a, b in zip(after, before, strict=True))
    assert max(moved) > 0.01, "a hundred times what rounding moves them"


@pytest.mark.parametrize("kind", ["PromptTuning", "PrefixTuning"])
@pytest.mark.parametrize("engine", ["fast", "plain"])
def test_virtual_tokens_are_taken_off_the_context(tokenizer: Any, kind: str, engine: str) -> None:
    import peft
    from lm_eval.api.instance import Instance

    heads = {"num_key_value_heads": 4}  # PEFT reads it, which GPT-2 does not have
    base = of_type("gpt2", max_position_embeddings=40, **heads)  # a 41st would be an error
    config = getattr(peft, f"{kind}Config")(task_type="CAUSAL_LM", num_virtual_tokens=8)
    model = peft.get_peft_model(base, config).eval()
    likelihood = Likelihood(model, 64, Silence())
    lm = PlainLM(model, tokenizer)
    lm = FastLM(model, tokenizer, likelihood) if engine == "fast" else lm
    assert likelihood.context == lm.max_length == 32
    assert likelihood.details["virtual_tokens"] == lm.details["virtual_tokens"] == 8
    text = "a cat and a dog and a bird " * 20
    (rolled,) = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)])
    (whole,) = lm.loglikelihood([Instance("loglikelihood", {}, (text, " that flies"), 0)])
    assert rolled < whole[0] < 0
    assert (lm.cut_requests, lm.cut_tokens > 0) == (1, True)


def test_four_bit_base(model_folder: Any) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    model = AutoModelForCausalLM.from_pretrained(
        model_folder, quantization_config=settings, dtype=torch.float32, device_map={"": "cpu"}
    )
    keep_as_quantized(model)
    check(model.eval(), TreeBody)


def test_nan_is_divergence() -> None:
    model = make_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(DivergedError):
        Likelihood(model, 64, Silence()).answer(queries())
