"""Answers to a fixed set of prompts, and what is counted of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, MistralConfig

from harness.corpus.corpus import Corpus
from harness.corpus.render import Renderer
from harness.records.events import Silence
from harness.score.answers import Answers, Ask
from harness.score.batched_answers import why_not
from harness.score.generations import choose_prompts, generate, score_generations
from harness.score.items import Place
from harness.score.likelihood import Likelihood
from harness.score.recorded import is_recordable
from harness.score.settings import own_settings
from tests.score.conftest import make_model


def test_prompts_are_the_same_for_every_order(corpus: Corpus) -> None:
    chosen = choose_prompts(corpus.held_out, 3)
    assert chosen == choose_prompts(corpus.held_out[::-1], 3)
    assert len({p.conversation.tree_id for p in chosen}) == 3
    assert all(p.messages[-1].role == "user" for p in chosen)


def test_answers_are_greedy_and_padding_changes_nothing(corpus: Corpus, tokenizer: Any) -> None:
    renderer, model = Renderer(tokenizer, "chatml"), make_model()
    prompts = choose_prompts(corpus.held_out, 3)
    found = generate(model, renderer, prompts, 12, likelihood_of(model))
    for prompt, (tokens, ended) in zip(prompts, found, strict=True):
        ids = renderer.prompt_ids(prompt.messages)
        for token in tokens:
            with torch.no_grad():
                assert int(model(torch.tensor([ids])).logits[0, -1].argmax()) == token
            ids.append(token)
        assert ended == (len(tokens) < 12)


HOW = {"prompts": "held_out", "max_new_tokens": 9, "decoding": "greedy"}


def test_what_a_model_s_own_settings_change_in_greedy_answers_is_said() -> None:
    model = make_model()
    assert own_settings(model) == ""
    model.generation_config.temperature = 0.6
    model.generation_config.repetition_penalty = 1.1
    assert own_settings(model) == "repetition_penalty = 1.1"
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    assert own_settings(adapted) == "repetition_penalty = 1.1"


def test_empty_and_never_ending_answers_are_counted(
    corpus: Corpus, tokenizer: Any, tmp_path: Path
) -> None:
    prompts = choose_prompts(corpus.held_out, 2)
    reference = tokenizer.encode(prompts[1].reference)
    answers = [([], True), (reference, False)]
    place = Place(tmp_path, "after", "training")
    scores, generations = score_generations(prompts, answers, tokenizer, place, HOW)
    values = {score.metric: score.value for score in scores}
    assert values["empty"] == 0.5
    assert values["never_ending"] == 0.5
    assert values["chrf"] == pytest.approx(50)
    assert values["rouge_l"] == pytest.approx(0.5)
    assert [g.ended for g in generations] == [True, False]
    assert generations[1].answer == prompts[1].reference
    texts = pq.read_table(tmp_path / str(scores[0].items)).to_pydict()
    assert texts["answer"] == [g.answer for g in generations]
    assert texts["target"] == [prompt.reference for prompt in prompts]


SMALL = {
    "vocab_size": 1024,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def small_model(family: str) -> Any:
    """A random model in float32 whose answers differ from prompt to prompt."""
    torch.manual_seed(0)
    shape = {**SMALL, "n_positions": 2048} if family == "gpt2" else SMALL
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return model.eval()


def likelihood_of(model: Any) -> Likelihood:
    return Likelihood(model, 4096, Silence())


@pytest.mark.parametrize("family", ["llama", "phi", "gpt2"])
def test_answers_are_those_of_transformers_own_loop(
    family: str, corpus: Corpus, tokenizer: Any
) -> None:
    renderer, model = Renderer(tokenizer, "chatml"), small_model(family)
    prompts = choose_prompts(corpus.held_out, 3)
    likelihood = likelihood_of(model)
    assert why_not(model, likelihood, 2048) is None
    assert is_recordable(model)
    found = generate(model, renderer, prompts, 40, likelihood)
    model.generation_config.min_length = 1  # leaves the work to transformers
    assert "min_length" in str(why_not(model, likelihood, 2048))
    assert found == generate(model, renderer, prompts, 40, likelihood)


def test_padding_does_not_part_a_soft_prompt_from_the_text(corpus: Corpus, tokenizer: Any) -> None:
    renderer, prompts = Renderer(tokenizer, "chatml"), choose_prompts(corpus.held_out, 3)
    settings = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    model = get_peft_model(small_model("llama"), settings).eval()
    likelihood = likelihood_of(model)
    found = generate(model, renderer, prompts, 12, likelihood)
    assert found == [generate(model, renderer, [p], 12, likelihood)[0] for p in prompts]
    assert len(set(map(str, found))) == 3


def test_answers_that_have_all_ended_are_not_gone_on_with() -> None:
    model = small_model("llama")
    tree = likelihood_of(model).tree
    assert tree is not None
    prompt = np.arange(30)
    (tokens,) = Answers(tree, 512, Silence()).answer([Ask(prompt, 60, lambda *_: None)])
    assert len(tokens) == 60
    calls: list[int] = []
    hook = model.model.register_forward_hook(lambda *_: calls.append(1))
    ask = Ask(prompt, 60, lambda found, _: 3 if len(found) > 2 else None)
    (ended,) = Answers(tree, 512, Silence()).answer([ask])
    hook.remove()
    assert ended == tokens[:3]
    assert len(calls) < 30  # two a token


def test_models_that_decode_otherwise_are_left_to_transformers() -> None:
    repeating = small_model("llama")
    repeating.generation_config.repetition_penalty = 1.3
    soft = get_peft_model(
        small_model("llama"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    )
    stretching = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    dynamic = make_model(rope_parameters=stretching, max_position_embeddings=64)
    for model in (repeating, soft, dynamic):
        assert why_not(model, likelihood_of(model), 64), type(model)
    assert not is_recordable(dynamic)
    sliding = AutoModelForCausalLM.from_config(
        MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=8)
    )
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear")
    adapted = get_peft_model(small_model("llama"), lora)
    for model in (sliding.eval(), adapted.eval()):
        assert why_not(model, likelihood_of(model), 64) is None
        assert is_recordable(model)
