"""Queries: sequences that share prefixes, others that do not, and prompts to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.corpus.corpus import build_corpus
from harness.corpus.render import Renderer
from harness.parallel.ranks import ALONE, Ranks
from harness.score.likelihood import Query, TargetScores
from harness.score.subject import Subject
from harness.weights.load import load_tokenizer
from tests.planned import planned
from tests.weights.tiny_llama import vocabulary

BATCH_TOKENS = 256


@dataclass
class Request:
    """As much of an lm-eval request as a language model reads."""

    args: tuple[str, dict[str, Any]] = field(default_factory=lambda: ("", {}))


def subject_of(weights: Path, ranks: Ranks = ALONE) -> Subject:
    """The tiny model in a folder, to be scored in passes of few tokens."""
    from transformers import AutoModelForCausalLM

    plan = planned("base", f"score.batch_tokens={BATCH_TOKENS}")
    tokenizer = load_tokenizer(weights)
    model = AutoModelForCausalLM.from_pretrained(weights).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():  # as it is, it says the same word to everything
            weight.add_(torch.randn_like(weight), alpha=0.3)
    renderer = Renderer(tokenizer, "chatml")
    return Subject(model, tokenizer, renderer, build_corpus(plan.corpus), plan, ranks=ranks)


def queries(kind: str) -> list[Query]:
    """Four preambles with questions and four answers each; or as many unlike sequences."""
    rng = np.random.default_rng(3)
    words = len(vocabulary())
    found = []
    for _ in range(4):
        preamble = rng.integers(0, words, 90)
        for _ in range(6):
            question = rng.integers(0, words, int(rng.integers(5, 30)))
            for choice in rng.choice(words, 4, replace=False):
                start = preamble if kind == "shared" else rng.integers(0, words, 90)
                tokens = np.concatenate([start, question, [choice]])
                found.append(Query(tokens, np.arange(len(tokens) - 3, len(tokens))))
    return found


def prompts() -> list[Any]:
    """Texts of unequal length, some of them alike, to be gone on with."""
    settings = {"until": ["\n\n"], "max_gen_toks": 5}
    texts = [f"{'word ' * (index % 7)}number {index % 19} is" for index in range(40)]
    return [Request((text, dict(settings))) for text in texts]


def as_data(answers: Sequence[TargetScores]) -> list[Any]:
    """Every bit of the answers."""
    return [[a.log_probs.tolist(), a.greedy.tolist()] for a in answers]
