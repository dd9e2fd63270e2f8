"""take_scores takes what a suite asks for and leaves the model as it was."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from harness.corpus.corpus import Corpus, build_corpus
from harness.errors import DivergedError
from harness.score.take import take_scores
from harness.spec.suite import CorpusSpec, ScoreSpec, Task

SPEC = ScoreSpec(
    window=256,
    stride=128,
    tasks=(Task(name="held_out_replies", limit=12),),
    generations=2,
    max_new_tokens=8,
    held_out_tokens=150,
)


def test_scores_rest_on_their_item_files(subject: Any, silence: Any, tmp_path: Path) -> None:
    found = take_scores(subject(SPEC), "before", tmp_path, silence)
    names = {(s.task, s.metric) for s in found.scores}
    assert names == {
        ("held_out", "perplexity"),
        ("held_out", "bits_per_byte"),
        ("held_out_replies", "acc"),
        ("held_out_replies", "acc_norm"),
        ("generations", "chrf"),
        ("generations", "rouge_l"),
        ("generations", "empty"),
        ("generations", "never_ending"),
    }
    assert len(found.generations) == 2
    for score in found.scores:
        assert score.items == f"items/{score.task}.{score.metric}.before.training.parquet"
        rows = pq.read_table(tmp_path / score.items).to_pydict()
        ratio = sum(rows["numerator"]) / sum(rows["denominator"])
        assert score.value == pytest.approx(math.exp(ratio) if score.transform == "exp" else ratio)
        assert score.n == len(rows["item"])
    assert [s.metric for s in found.scores if s.headline] == ["perplexity", "acc_norm"]


def test_model_and_random_state_are_left_as_found(
    subject: Any, silence: Any, tmp_path: Path, model: Any
) -> None:
    model.train()
    model.model.layers[0].eval()
    model.config.use_cache = False
    torch.manual_seed(5)
    expected = torch.random.get_rng_state()
    take_scores(subject(SPEC), "before", tmp_path, silence)
    assert torch.equal(torch.random.get_rng_state(), expected)
    assert model.training
    assert not model.model.layers[0].training
    assert model.model.layers[1].training
    assert model.config.use_cache is False
    assert not model.lm_head._forward_hooks


def test_a_model_that_diverged_gives_no_number(
    subject: Any, silence: Any, tmp_path: Path, model: Any
) -> None:
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    with pytest.raises(DivergedError):
        take_scores(subject(SPEC), "after", tmp_path, silence)


def test_prompts_come_from_the_sample_where_asked(
    subject: Any, silence: Any, tmp_path: Path, corpus: Corpus
) -> None:
    """So that a report on text that must not be shown still shows answers."""
    asked = [{"role": "user", "content": f"Question {n}?"} for n in range(20)]
    replies = [{"role": "assistant", "content": f"Answer {n}."} for n in range(20)]
    chats = tmp_path / "chats.jsonl"
    lines = [json.dumps({"messages": turns}) for turns in zip(asked, replies, strict=True)]
    chats.write_text("\n".join(lines) + "\n", encoding="utf-8")
    source = CorpusSpec(source=str(chats), format="chat")
    from_sample = {conversation.messages[0].text for conversation in corpus.held_out}
    for prompts in ("held_out", "sample"):
        spec = SPEC.model_copy(update={"prompts": prompts, "tasks": (), "generations": 1})
        plain = subject(spec)
        plan = plain.plan.model_copy(update={"corpus": source})
        own = replace(plain, corpus=build_corpus(source), plan=plan)
        (answer,) = take_scores(own, "before", tmp_path, silence).generations
        assert (answer.prompt in from_sample) == (prompts == "sample")
