"""Arithmetic: how long training takes on a GPU that is not here, by its peak and a share of it."""

from __future__ import annotations

from collections.abc import Callable

from harness.measure.work import training_flops_per_token
from harness.spec.gpus import peak_flops
from harness.spec.plan import Plan


def training_seconds_by_peak(share: float) -> Callable[[Plan], float | None]:
    """Tells the seconds of training a plan for a budget in tokens, without loading or scores.

    Args:
        share: of the GPU's dense bfloat16 peak that training reaches (0.4, say), as reports name
            it for runs of the same kind on another GPU.

    Devices that share a run's rows divide its time, each at that share of its own peak.

    Rows are taken to be full and all tokens to carry loss, which is the most work that a token can
    be. None where the peak is not known or the budget is one of steps.
    """

    def tell(plan: Plan) -> float | None:
        if not plan.trains:
            return 0.0
        peak = peak_flops(plan.device.name)
        if peak is None or plan.budget.tokens is None:
            return None
        work = training_flops_per_token(plan, plan.training.sequence_length, 1.0)
        return plan.budget.tokens * work / (share * peak * plan.training.devices)

    return tell
