"""Measures: one comparison of a claim, taken from the runs of one ground."""

from __future__ import annotations

import math
from functools import singledispatch

from harness.report.claims.compared import not_run, out_of_reach
from harness.report.claims.decide import Leaning
from harness.report.claims.ground import Ground, VariantRuns
from harness.report.claims.ratios import compare_bits, compare_costs, compare_speed
from harness.report.claims.scores import compare_forms, compare_scores
from harness.spec.claim import (
    AnyCheck,
    BeyondCheck,
    BitsCheck,
    CostCheck,
    FormCheck,
    RateCheck,
    ScoreCheck,
    SpeedCheck,
)


@singledispatch
def measure(check: AnyCheck, ground: Ground) -> Leaning:  # noqa: ARG001 - each kind has its own
    """One comparison on one ground."""
    raise TypeError(type(check))


@measure.register
def _(check: BeyondCheck, ground: Ground) -> Leaning:  # noqa: ARG001
    return out_of_reach(check.why)


def compare_rates(check: RateCheck, ground: Ground) -> Leaning:
    """The ratio of two best learning rates, as sure as the neighbouring rates that were tried."""
    found = [ground.find(names, check.conditions) for names in (check.variant, check.against)]
    if None in found:
        return not_run([check.variant, check.against], check.conditions)
    arms = [arm for arm in found if arm is not None]
    if any(len(arm.rates) < 3 or arm.best_rate is None for arm in arms):
        return out_of_reach("no search of learning rates for both")
    (low, best, high), (low2, best2, high2) = (_around(arm) for arm in arms)
    ratio, least, most = best / best2, low / high2, high / low2
    text = (
        f"best rates {best:g} and {best2:g}: × {ratio:.3g}, by the neighbouring rates tried "
        f"between {least:.3g} and {most:.3g}; one seed a rate"
    )
    short = f"× {ratio:.3g} (grid: {least:.2g} to {most:.3g})"
    if check.ratio[0] <= ratio <= check.ratio[1] and least > 0 and math.isfinite(most):
        return Leaning("reproduced", 0.0, text, short=short)
    if most < check.ratio[0] or least > check.ratio[1]:
        return Leaning("contradicted", 0.0, text, short=short)
    return Leaning("undecided", 1.0, text, "a finer grid of rates, and one beyond its edges", short)


def _around(arm: VariantRuns) -> tuple[float, float, float]:
    """The rates below and above the best one that were tried, and the best; open at an edge."""
    rates = sorted(arm.rates)
    best = arm.best_rate or math.nan
    place = rates.index(best)
    below = rates[place - 1] if place else 0.0
    above = rates[place + 1] if place + 1 < len(rates) else math.inf
    return below, best, above


measure.register(ScoreCheck, compare_scores)
measure.register(FormCheck, compare_forms)
measure.register(CostCheck, compare_costs)
measure.register(BitsCheck, compare_bits)
measure.register(SpeedCheck, compare_speed)
measure.register(RateCheck, compare_rates)
