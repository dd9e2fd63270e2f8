"""Throughput: tokens and floating-point operations per second over steady steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import Unpredicted
from harness.records.record import LossPoint, Throughput
from harness.spec.gpus import peak_flops

if TYPE_CHECKING:
    from harness.spec.plan import Plan


def warmup_steps(steps: int) -> int:
    """First steps left out: a tenth, at least two, but never all."""
    return min(max(2, math.ceil(steps / 10)), max(steps - 1, 0))


def throughput(
    losses: Sequence[LossPoint],
    plan: Plan | None = None,
    *,
    labelled_share: float = 1.0,
    context: float | None = None,
) -> Throughput:
    """Median, 10th and 90th percentile of non-padding tokens per second, step by step.

    With the plan and the ``context`` also the operations per second that the model asked for at
    the median (:func:`harness.measure.work.training_flops_per_token`), and on a known GPU their
    share of its dense bfloat16 peak.

    Args:
        losses: the steps, the slow first ones too.
        plan: of the training.
        labelled_share: that of the tokens that carry loss.
        context: tokens of a token's own conversation, on average over the tokens; rows may hold
            several conversations, which do not attend to each other.
    """
    warmup = warmup_steps(len(losses))
    steady = [point for point in losses[warmup:] if point.seconds > 0]
    if not steady:
        return Throughput(warmup_steps=warmup, median=None, p10=None, p90=None)
    rates = [point.non_padding_tokens / point.seconds for point in steady]
    p10, median, p90 = (float(value) for value in np.quantile(rates, [0.1, 0.5, 0.9]))
    flops = share = None
    if plan is not None and context is not None:
        per_token = _flops_per_token(plan, context, labelled_share)
        peak = _peak_flops(plan)
        flops = None if per_token is None else median * per_token
        share = flops / peak if flops and peak else None
    return Throughput(
        warmup_steps=warmup,
        median=median,
        p10=p10,
        p90=p90,
        flops_per_second=flops,
        peak_share=share,
    )


def _peak_flops(plan: Plan) -> float | None:
    """Of all devices that share the plan."""
    peak = peak_flops(plan.device.name)
    return None if peak is None else peak * plan.training.devices


def _flops_per_token(plan: Plan, context: float, labelled_share: float) -> float | None:
    """None where the number of trained parameters cannot be known from the plan."""
    from harness.measure.work import training_flops_per_token

    try:
        return training_flops_per_token(plan, context, labelled_share)
    except Unpredicted:
        return None
