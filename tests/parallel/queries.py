"""Queries: sequences that share prefixes, and others that do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.score.likelihood import Query, TargetScores

BATCH_TOKENS = 256


def queries(kind: str) -> list[Query]:
    """Four preambles with questions and four answers each; or as many unlike sequences."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(4):
        preamble = rng.integers(0, 128, 90)
        for _ in range(6):
            question = rng.integers(0, 128, int(rng.integers(5, 30)))
            for choice in rng.choice(128, 4, replace=False):
                start = preamble if kind == "shared" else rng.integers(0, 128, 90)
                tokens = np.concatenate([start, question, [choice]])
                found.append(Query(tokens, np.arange(len(tokens) - 3, len(tokens))))
    return found


def as_data(answers: Sequence[TargetScores]) -> list[Any]:
    """Every bit of the answers."""
    return [[a.log_probs.tolist(), a.greedy.tolist()] for a in answers]
