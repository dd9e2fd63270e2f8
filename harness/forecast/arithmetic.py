"""Arithmetic: how long training takes by the operations it asks for and a device's peak."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from harness.errors import Unpredicted
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


def least_training_seconds(plan: Plan) -> float | None:
    """Seconds that training takes at least: its products alone, at the device's peak.

    The peak of a CPU is tried on this machine, as if it were idle; tokens are counted
    as if none carried loss. None for a budget in steps, a GPU whose peak is not known, and an
    adapter whose size is known only after it has seen the data.
    """
    if not plan.trains:
        return 0.0
    on_cpu = plan.device.kind == "cpu"
    peak = _products_per_second() if on_cpu else peak_flops(plan.device.name)
    if peak is None or plan.budget.tokens is None:
        return None
    try:
        work = training_flops_per_token(plan, context=0.0, labelled_share=0.0)
    except Unpredicted:
        return None
    return plan.budget.tokens * work / (peak * plan.training.devices)


@cache
def _products_per_second() -> float:
    """Once a command."""
    from harness.measure.products import products_per_second

    return products_per_second()
