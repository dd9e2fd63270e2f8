"""Throughput: tokens and floating-point operations per second over steady steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from harness.record import LossPoint, Throughput


def warmup_steps(steps: int) -> int:
    """First steps left out: a tenth, at least two, but never all."""
    return min(max(2, math.ceil(steps / 10)), max(steps - 1, 0))


def throughput(losses: Sequence[LossPoint]) -> Throughput:
    """Median, 10th and 90th percentile of non-padding tokens per second, step by step."""
    warmup = warmup_steps(len(losses))
    rates = [point.non_padding_tokens / point.seconds for point in losses[warmup:]]
    if not rates:
        return Throughput(warmup_steps=warmup, median=None, p10=None, p90=None)
    p10, median, p90 = (float(value) for value in np.quantile(rates, [0.1, 0.5, 0.9]))
    return Throughput(warmup_steps=warmup, median=median, p10=p10, p90=p90)
