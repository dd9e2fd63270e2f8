"""Scoring: the bytes of one pass of a score, rehearsed on shapes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from harness.spec.plan import Plan
from harness.train.rehearsal import rehearse, rehearsing
from harness.weights.phantom import PhantomOf


def rehearse_scoring(plan: Plan, tokens: int) -> int:
    """Most bytes beside the weights while ``tokens`` in one row pass the layers for a score."""
    return _rehearsed(PhantomOf.of(plan), tokens)


@lru_cache(maxsize=256)
def _rehearsed(asked: PhantomOf, tokens: int) -> int:
    """Plans of one study mostly differ in what scores do not depend on."""
    plan = asked.plan
    return rehearse(plan, lambda model: (_score(plan, model, tokens),))[0]


def _score(plan: Plan, model: Any, tokens: int) -> int:
    model.eval()
    base: Any = model.get_base_model() if plan.adapter is not None else model
    with torch.no_grad(), rehearsing(model) as live:
        base.base_model(
            input_ids=torch.empty(1, tokens, dtype=torch.int64, device="meta"),
            attention_mask=torch.empty(1, 1, tokens, tokens, dtype=torch.bool, device="meta"),
            use_cache=False,
        )
        return live.peak
