"""Measures: one comparison of a claim, taken from the runs of one ground."""

from __future__ import annotations

from functools import singledispatch

from harness.report.claims.compared import out_of_reach
from harness.report.claims.decide import Leaning
from harness.report.claims.ground import Ground
from harness.report.claims.rates import compare_rates
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


measure.register(ScoreCheck, compare_scores)
measure.register(FormCheck, compare_forms)
measure.register(CostCheck, compare_costs)
measure.register(BitsCheck, compare_bits)
measure.register(SpeedCheck, compare_speed)
measure.register(RateCheck, compare_rates)
