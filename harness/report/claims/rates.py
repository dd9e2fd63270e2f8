"""Rates: the ratio of the learning rates at which two variants are best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness.report.claims.compared import arms_of, out_of_reach
from harness.report.claims.decide import Leaning, LookCorrection, lean, said_of, within
from harness.report.claims.ground import Ground
from harness.report.pairing import ScoreKey
from harness.report.rows import Row
from harness.report.statistics.noise import Noise
from harness.spec.claim import RateCheck

LOSS = ScoreKey.named("perplexity")
FOR_CURVES = 4  # learning rates, at least
FREEDOM = 3  # degrees of freedom, at least, by which the noise of a training is known


@dataclass(frozen=True)
class Lowest:
    """Where a curve of losses is lowest, as the log of the rate.

    ``spread`` is its variance where each loss has variance 1. ``apart`` is how far away the curve
    through one rate more is lowest: what choosing a parabola may cost.
    """

    place: float
    spread: float
    apart: float


def compare_rates(check: RateCheck, ground: Ground) -> Leaning:
    """The ratio of the rates at which parabolas through two searches are lowest.

    Its interval holds what another seed would change, by the seeds of both variants, and what
    another curve would; the validation conversations are taken as they are.
    """
    arms = arms_of(check, ground, held_out=False)
    if isinstance(arms, Leaning):
        return arms
    if any(len(arm.rates) < FOR_CURVES or arm.best_rate is None for arm in arms):
        few = [arm.name for arm in arms if len(arm.rates) < FOR_CURVES or arm.best_rate is None]
        return out_of_reach(f"no search of {FOR_CURVES} learning rates for {' and '.join(few)}")
    tried = f"best rates tried {arms[0].best_rate:g} and {arms[1].best_rate:g}"
    own, other = (lowest(arm.rates) for arm in arms)
    if isinstance(own, str) or isinstance(other, str):
        missing = next(one for one in (own, other) if isinstance(one, str))
        return Leaning("undecided", tried, missing, tried)
    noise = training_noise(row for arm in arms for row in arm.rows)
    return _judged(check, tried, (own, other), noise, LookCorrection(alone=ground.alone))


def _judged(
    check: RateCheck,
    tried: str,
    curves: tuple[Lowest, Lowest],
    noise_of: tuple[float, int],
    correction: LookCorrection,
) -> Leaning:
    own, other = curves
    log = own.place - other.place
    ratio = f"× {math.exp(log):.3g}"
    variance, freedom = noise_of
    if freedom < FREEDOM:
        text = f"{tried}: {ratio} by parabolas through three rates, of unknown noise"
        return Leaning("undecided", text, "three seeds or more", ratio)
    variance *= own.spread + other.spread
    noise = Noise(variance + own.apart**2 + other.apart**2, freedom)
    where = within(*map(math.log, check.ratio))
    errors = lean(partial(noise.interval, log), where)
    error = correction.error(errors, where)
    low, high = (math.exp(end) for end in noise.interval(log, error))
    found = f"{ratio} [{low:.3g}, {high:.3g}]{said_of(error)}"
    accepted = f"accepted: {check.ratio[0]:g} to {check.ratio[1]:g}"
    short = f"{found}, {accepted}"
    text = f"{tried}: {found} between them, by parabolas through three rates; {accepted}"
    return Leaning(errors.verdict(), text, "a finer grid of rates", short, errors)


def lowest(losses: Mapping[float, float]) -> Lowest | str:
    """The lowest point of the parabola through the lowest loss and its two neighbours.

    ``losses`` are in nats, by four learning rates or more; the parabola is one in the log of the
    rate. Where there is no such point: what rates are missing.
    """
    rates = sorted(losses)
    at = min(range(len(rates)), key=lambda index: _or_infinite(losses[rates[index]]))
    near = rates[max(at - 1, 0) : at + 2]
    if len(near) < 3:
        return "rates beyond the edge"
    y = np.array([losses[rate] for rate in near])
    if not np.isfinite(y).all():
        failed = near[0] if not math.isfinite(y[0]) else near[2]
        return f"a rate between {min(failed, near[1]):g} and {max(failed, near[1]):g}"
    x = np.log(near)
    # slopes of both halves, and half the second derivative, as sums over the three losses
    first = np.array([-1.0, 1.0, 0.0]) / (x[1] - x[0])
    second = np.array([0.0, -1.0, 1.0]) / (x[2] - x[1])
    bend = (second - first) / (x[2] - x[0])
    slope, curve = float(first @ y), float(bend @ y)
    if curve <= 0:
        return "a finer grid of rates"  # three equal losses
    place = float((x[0] + x[1]) / 2 - slope / (2 * curve))
    by_loss = (bend * slope / curve - first) / (2 * curve)  # derivative of the place
    more = [rates[index] for index in (at - 2, at + 2) if 0 <= index < len(rates)]
    fourth = [rate for rate in more if math.isfinite(losses[rate])]
    apart = [abs(place - _lowest_of_cubic({r: losses[r] for r in (*near, one)})) for one in fourth]
    return Lowest(place, float(by_loss @ by_loss), max(apart, default=float(x[2] - x[0]) / 2))


def _lowest_of_cubic(losses: Mapping[float, float]) -> float:
    """Log of the rate at which the cubic through four losses has its minimum.

    It has one, since one of the middle losses is the lowest of the four.
    """
    x = np.log(list(losses))
    middle = float(x.mean())  # for the sake of rounding
    cubic = np.polyfit(x - middle, np.array(list(losses.values())), 3)
    roots = np.roots(np.polyder(cubic))
    bends = np.polyval(np.polyder(cubic, 2), roots)
    return float(roots[np.argmax(bends.real)].real) + middle


def _or_infinite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def training_noise(rows: Iterable[Row]) -> tuple[float, int]:
    """Variance of the variants' held-out loss (nats) between seeds, and its degrees of freedom."""
    squares, freedom = 0.0, 0
    for row in rows:
        scores = [LOSS.find(record) for record in row.finished if record.plan.trains]
        logs = np.log([score.value for score in scores if score is not None])
        if len(logs) > 1:
            squares += float(((logs - logs.mean()) ** 2).sum())
            freedom += len(logs) - 1
    return (squares / freedom if freedom else 0.0), freedom
