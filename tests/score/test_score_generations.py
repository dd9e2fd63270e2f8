"""Answers to a fixed set of prompts, and what is counted of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.corpus.corpus import Corpus
from harness.corpus.render import Renderer
from harness.records.events import Silence
from harness.score.generations import choose_prompts, generate, score_generations
from harness.score.items import Place
from harness.spec.suite import ScoreSpec
from tests.score.conftest import make_model


def test_prompts_are_the_same_for_every_order(corpus: Corpus) -> None:
    chosen = choose_prompts(corpus.held_out, 3)
    assert chosen == choose_prompts(corpus.held_out[::-1], 3)
    assert len({p.conversation.tree_id for p in chosen}) == 3
    assert all(p.messages[-1].role == "user" for p in chosen)


def test_answers_are_greedy_and_padding_changes_nothing(corpus: Corpus, tokenizer: Any) -> None:
    renderer, model = Renderer(tokenizer, "chatml"), make_model()
    prompts = choose_prompts(corpus.held_out, 3)
    found = generate(model, renderer, prompts, 12, Silence())
    for prompt, (tokens, ended) in zip(prompts, found, strict=True):
        ids = renderer.prompt_ids(prompt.messages)
        for token in tokens:
            with torch.no_grad():
                assert int(model(torch.tensor([ids])).logits[0, -1].argmax()) == token
            ids.append(token)
        assert ended == (len(tokens) < 12)


def test_empty_and_never_ending_answers_are_counted(
    corpus: Corpus, tokenizer: Any, tmp_path: Path
) -> None:
    prompts = choose_prompts(corpus.held_out, 2)
    reference = tokenizer.encode(prompts[1].reference)
    answers = [([], True), (reference, False)]
    place = Place(tmp_path, "after", "training")
    scores, generations = score_generations(
        prompts, answers, tokenizer, place, ScoreSpec(max_new_tokens=9)
    )
    values = {score.metric: score.value for score in scores}
    assert values["empty"] == 0.5
    assert values["never_ending"] == 0.5
    assert values["chrf"] == pytest.approx(50)
    assert values["rouge_l"] == pytest.approx(0.5)
    assert [g.ended for g in generations] == [True, False]
    assert generations[1].answer == prompts[1].reference
