"""Rates: the ratio of the learning rates at which two variants are best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from harness.report.claims.compared import FEWEST_RATES, not_run, out_of_reach
from harness.report.claims.decide import Leaning, lean, within
from harness.report.claims.ground import Ground
from harness.report.pairing import ScoreKey
from harness.report.rows import Row
from harness.report.statistics.noise import Noise
from harness.spec.claim import RateCheck

LOSS = ScoreKey.named("perplexity")
FREEDOM = 3  # degrees of freedom, at least, by which the noise of a training is known


@dataclass(frozen=True)
class Lowest:
    """Where a curve of losses is lowest: log of the rate, and its variance for one of the losses.

    The variance is that of the log rate where each loss has variance 1.
    """

    place: float
    spread: float


def compare_rates(check: RateCheck, ground: Ground) -> Leaning:
    """The ratio of the rates at which parabolas through two searches are lowest.

    Its interval holds what another seed would change, by the seeds of all variants; the
    validation conversations are taken as they are.
    """
    found = [ground.find(names, check.conditions) for names in (check.variant, check.against)]
    if None in found:
        return not_run([check.variant, check.against], check.conditions)
    arms = [arm for arm in found if arm is not None]
    if any(len(arm.rates) < FEWEST_RATES or arm.best_rate is None for arm in arms):
        return out_of_reach("no search of learning rates for both")
    tried = f"best rates tried {arms[0].best_rate:g} and {arms[1].best_rate:g}"
    own, other = (lowest(arm.rates) for arm in arms)
    if own is None or other is None:
        short = "a best rate at the edge"
        return Leaning("undecided", f"{tried}: {short}", "rates beyond the edge", short)
    return _judged(check, tried, own, other, ground)


def _judged(check: RateCheck, tried: str, own: Lowest, other: Lowest, ground: Ground) -> Leaning:
    log = own.place - other.place
    ratio = f"× {math.exp(log):.3g}"
    variance, freedom = training_noise(row for arm in ground.arms.values() for row in arm.rows)
    if freedom < FREEDOM:
        text = f"{tried}: {ratio} by parabolas through three rates, of unknown noise"
        return Leaning("undecided", text, "three seeds or more", ratio)
    noise = Noise(variance * (own.spread + other.spread), freedom)

    def interval(alpha: float) -> tuple[float, float]:
        half = noise.half_width(alpha)
        return log - half, log + half

    low, high = (math.exp(end) for end in interval(0.05))
    errors = lean(interval, within(*map(math.log, check.ratio)))
    found = f"{ratio} [{low:.3g}, {high:.3g}]"
    accepted = f"accepted: {check.ratio[0]:g} to {check.ratio[1]:g}"
    short = f"{found}, {accepted}"
    text = f"{tried}: {found} by parabolas through three rates; {accepted}"
    return Leaning(errors.verdict(), text, "a finer grid of rates", short, errors)


def lowest(losses: Mapping[float, float]) -> Lowest | None:
    """The lowest point of the parabola through the lowest loss and its two neighbours.

    ``losses`` are in nats, by learning rate; the parabola is one in the log of the rate. None
    where the lowest loss lies at an edge, or a neighbour is not finite or not above it.
    """
    rates = sorted(losses)
    at = min(range(len(rates)), key=lambda index: _or_infinite(losses[rates[index]]))
    near = rates[max(at - 1, 0) : at + 2]
    y = np.array([losses[rate] for rate in near])
    if len(near) < 3 or not np.isfinite(y).all():
        return None
    x = np.log(near)
    # slopes of both halves, and half the second derivative, as sums over the three losses
    first = np.array([-1.0, 1.0, 0.0]) / (x[1] - x[0])
    second = np.array([0.0, -1.0, 1.0]) / (x[2] - x[1])
    bend = (second - first) / (x[2] - x[0])
    slope, curve = float(first @ y), float(bend @ y)
    if curve <= 0:
        return None
    place = (x[0] + x[1]) / 2 - slope / (2 * curve)
    by_loss = (bend * slope / curve - first) / (2 * curve)  # derivative of the place
    return Lowest(float(place), float(by_loss @ by_loss))


def _or_infinite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def training_noise(rows: Iterable[Row]) -> tuple[float, int]:
    """Variance of a trained variant's held-out loss (nats) between seeds, and its freedom."""
    squares, freedom = 0.0, 0
    for row in rows:
        scores = [LOSS.find(record) for record in row.finished if record.plan.trains]
        logs = np.log([score.value for score in scores if score is not None])
        if len(logs) > 1:
            squares += float(((logs - logs.mean()) ** 2).sum())
            freedom += len(logs) - 1
    return (squares / freedom if freedom else 0.0), freedom
