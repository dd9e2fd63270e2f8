"""Scoring: the bytes of one pass of a score, rehearsed on shapes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from harness.spec.model import context_of
from harness.spec.plan import Plan
from harness.train.rehearsal import rehearse, rehearsing
from harness.weights.phantom import PhantomOf


def rehearse_scoring(plan: Plan, tokens: int) -> int:
    """Most bytes beside the weights while ``tokens`` pass the layers for a score.

    They are one row, the tree of several texts. A model with a table of fewer positions gives no
    tree, and is given rows of its own length, as scores are then taken.
    """
    asked, context = PhantomOf.of(plan), context_of(plan.model.config)
    try:
        return _rehearsed(asked, 1, tokens)
    except (IndexError, RuntimeError):
        length = (context or tokens) * plan.interpolation
        if length >= tokens:
            raise
        return _rehearsed(asked, -(-tokens // length), length)


@lru_cache(maxsize=256)
def _rehearsed(asked: PhantomOf, rows: int, length: int) -> int:
    """Plans of one study mostly differ in what scores do not depend on."""
    plan = asked.plan
    return rehearse(plan, lambda model: (_score(plan, model, rows, length),))[0]


def _score(plan: Plan, model: Any, rows: int, length: int) -> int:
    model.eval()
    base: Any = model.get_base_model() if plan.adapter is not None else model
    with torch.no_grad(), rehearsing(model) as live:
        base.base_model(
            input_ids=torch.empty(rows, length, dtype=torch.int64, device="meta"),
            attention_mask=torch.empty(rows, 1, length, length, dtype=torch.bool, device="meta"),
            use_cache=False,
        )
        return live.peak
