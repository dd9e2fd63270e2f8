"""Measures: one comparison of a claim, taken from the runs of one ground."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch

import numpy as np

from harness import numbers
from harness.report.claims.decide import Leaning, Regions, lean, regions, within
from harness.report.claims.ground import Ground, VariantRuns
from harness.report.pairing import Aligned, ScoreKey, read_items
from harness.report.rows import Row, memory_kind
from harness.report.sample import Scale, make_sample, make_scale
from harness.report.statistics.effects import Effect
from harness.report.statistics.noise import Floats, Noise
from harness.report.statistics.power import needed
from harness.spec.claim import (
    AnyCheck,
    BeyondCheck,
    BitsCheck,
    CostCheck,
    FormCheck,
    PairCheck,
    RateCheck,
    ScoreCheck,
    SpeedCheck,
)

SMOOTHED = 5  # steps of a running mean
FEWEST_RUNS = 2
ALLOCATED = "peak_allocated_bytes"


@dataclass(frozen=True)
class Sides:
    """Two variants of a ground, each at its best rate where both were tuned."""

    own: Row
    other: Row
    tuned: bool

    @property
    def where(self) -> str:
        """Which rates were compared."""
        trained = self.own.plan.trains or self.other.plan.trains
        return "" if not trained else " at best rates" if self.tuned else " at default rates"


@singledispatch
def measure(check: AnyCheck, ground: Ground) -> Leaning:  # noqa: ARG001 - each kind has its own
    """One comparison on one ground."""
    raise TypeError(type(check))


@measure.register
def _(check: BeyondCheck, ground: Ground) -> Leaning:  # noqa: ARG001
    return _out(check.why)


@measure.register
def _(check: ScoreCheck, ground: Ground) -> Leaning:
    sides = _sides(check, ground)
    if isinstance(sides, Leaning):
        return sides
    found = _scored(check, ground, sides)
    if not sides.tuned or check.rates or found.outcome == "out of reach":
        return found
    before = _sides(check.model_copy(update={"rates": "default"}), ground)
    if isinstance(before, Leaning):
        return found
    shared = _scored(check, ground, before)
    return replace(found, text=f"{found.text}; {shared.text}")


def _scored(check: ScoreCheck, ground: Ground, sides: Sides) -> Leaning:
    """The difference of two rows on the score of a check."""
    key = ScoreKey.named(check.score)
    rows = (replace(sides.own, label="own"), replace(sides.other, label="other"))
    scores = [found for row in rows for r in row.finished if (found := key.find(r))]
    aligned = read_items(rows, key).aligned
    if aligned is None or len(set(aligned.labels)) < len(rows):
        return _out(f"{check.score} was not taken by both on the same items")
    scale = make_scale(scores, check.margin)
    effect = make_sample(aligned, scale).paired("own", "other")
    if effect is None:
        return _out("no seed in common")
    return _judged(check, effect, scale, ground.looks, sides)


def _judged(
    check: ScoreCheck | FormCheck, effect: Effect, scale: Scale, looks: int, sides: Sides | None
) -> Leaning:
    worse_by = effect if scale.sign > 0 else effect.negated()
    shown = numbers.percent if scale.relative else _points
    text = f"{check.score} {shown(scale.difference(effect.estimate), signed=True)}"
    where = "" if sides is None else sides.where
    if effect.obstacle:
        why = "one training each" if effect.obstacle == "one training" else effect.obstacle
        decides = "three seeds or more" if effect.obstacle == "one training" else "more items"
        return Leaning("undecided", 1.0, f"{text} ({why}){where}", decides)
    low, high = (scale.difference(end) for end in effect.interval())
    text += f" [{shown(low, signed=True)}, {shown(high, signed=True)}]{where}"
    text += f", {effect.seeds} seeds" if effect.noise.seeds is not None else ", items alone"
    outcome, p = lean(worse_by.interval, regions(check.says, scale.bound), looks)
    return Leaning(outcome, p, text, _settles(worse_by, scale.bound))


def _settles(effect: Effect, bound: float) -> str:
    """What would show variants without a difference to be equal within the margin."""
    found = needed(effect, bound)
    ways = []
    if found.seeds is not None:
        ways.append(f"about {found.seeds} seeds")
    if found.more_items is not None:
        ways.append(f"about {found.more_items:.1f} times the items")
    return " or ".join(ways) or "more seeds and more items"


def _points(share: float, *, signed: bool) -> str:
    text = numbers.number(abs(share) * 100, digits=2)
    return f"{'−' if share < 0 else '+' if signed else ''}{text} points"


@measure.register
def _(check: FormCheck, ground: Ground) -> Leaning:
    arm = ground.find(check.variant, check.conditions)
    if arm is None or arm.row is None:
        return _not_run([check.variant], check.conditions)
    key = ScoreKey.named(check.score)
    parts = [
        read_items([replace(arm.row, label=name)], replace(key, precision=form)).aligned
        for name, form in (("own", check.form), ("other", "training"))
    ]
    joined = None if parts[0] is None or parts[1] is None else _beside(parts[0], parts[1])
    if joined is None:
        return _out(f"{arm.name} was not scored as {check.form}")
    scores = [found for record in arm.row.finished if (found := key.find(record))]
    scale = make_scale(scores, check.margin)
    effect = make_sample(joined, scale).paired("own", "other")
    if effect is None:
        return _out("no seed in common")
    return _judged(check, effect, scale, ground.looks, None)


def _beside(first: Aligned, second: Aligned) -> Aligned | None:
    """The runs of both, where they have the same items."""
    if first.items != second.items or not np.array_equal(first.group, second.group):
        return None
    answers = None
    if first.answers is not None and second.answers is not None:
        answers = np.hstack([first.answers, second.answers])
    return Aligned(
        labels=(*first.labels, *second.labels),
        seeds=(*first.seeds, *second.seeds),
        trains=(*first.trains, *second.trains),
        numerator=np.hstack([first.numerator, second.numerator]),
        denominator=np.hstack([first.denominator, second.denominator]),
        group=first.group,
        answers=answers,
    )


@measure.register
def _(check: CostCheck, ground: Ground) -> Leaning:
    sides = _sides(check, ground)
    if isinstance(sides, Leaning):
        return sides
    shared = any(record.shared for row in (sides.own, sides.other) for record in row.finished)
    if shared and check.cost in ("time", "throughput", "energy"):
        return _out(f"the runs shared their device, so their {check.cost} is not their own")
    if any(record.together > 1 for row in (sides.own, sides.other) for record in row.finished):
        return _out(f"runs trained together, so their {check.cost} is a share of all of theirs")
    read = _cost_reader(check.cost, (sides.own, sides.other))
    costs = [_by_seed(row, read) for row in (sides.own, sides.other)]
    logs = _logs(costs[0], costs[1])
    if not len(logs):
        return _out(f"{check.cost} was not measured for both")
    where = within(*map(math.log, check.ratio))
    if check.cost == "weights":
        return _exact_ratio(f"{check.cost} × ", float(logs.mean()), where)
    return _ratio(f"{check.cost} × ", logs, where, ground.looks)


def _cost_reader(cost: str, rows: Sequence[Row]) -> Callable[[Row], float | None]:
    # What PyTorch allocated is a run's own, also where several share a device.
    allocated = all(row.peak_bytes(ALLOCATED) for row in rows)
    kind = ALLOCATED if allocated else memory_kind(rows)
    readers: dict[str, Callable[[Row], float | None]] = {
        "memory": lambda row: row.peak_bytes(kind),
        "weights": lambda row: row.weight_bytes,
        "time": lambda row: row.phase_seconds("train"),
        "throughput": lambda row: row.tokens_per_second,
        "energy": lambda row: row.energy_joules(),
    }
    return readers[cost]


def _by_seed(row: Row, read: Callable[[Row], float | None]) -> dict[int, float]:
    """A cost of each seed's run."""
    found: dict[int, float] = {}
    for run in row.runs:
        value = read(replace(row, runs=(run,))) if run.record.status == "ok" else None
        if value:
            found[run.record.plan.seed] = value
    return found


def _logs(own: dict[int, float], other: dict[int, float]) -> Floats:
    """Log ratios on common seeds."""
    common = sorted(set(own) & set(other))
    return np.array([math.log(own[seed] / other[seed]) for seed in common])


def _exact_ratio(name: str, log: float, where: Regions) -> Leaning:
    """A ratio without noise."""
    inside = where.fits[0] <= log <= where.fits[1]
    return Leaning("reproduced" if inside else "contradicted", 0.0, f"{name}{math.exp(log):.3g}")


def _ratio(name: str, logs: Floats, where: Regions, looks: int) -> Leaning:
    """A ratio over seeds: the runs are the items, so Student's interval of their mean."""
    mean = float(logs.mean())
    text = f"{name}{math.exp(mean):.3g}"
    if len(logs) >= FEWEST_RUNS and float(np.ptp(logs)) == 0:
        return _exact_ratio(name, mean, where)
    if len(logs) < FEWEST_RUNS:
        return Leaning("undecided", 1.0, f"{text} (one run each)", "three seeds or more")
    noise = Noise(float(logs.var(ddof=1)) / len(logs), len(logs) - 1.0)

    def interval(alpha: float) -> tuple[float, float]:
        half = noise.half_width(alpha)
        return mean - half, mean + half

    low, high = interval(0.05)
    outcome, p = lean(interval, where, looks)
    text += f" [{math.exp(low):.3g}, {math.exp(high):.3g}], {len(logs)} seeds"
    return Leaning(outcome, p, text, "more seeds")


@measure.register
def _(check: BitsCheck, ground: Ground) -> Leaning:
    sides = _sides(check, ground)
    if isinstance(sides, Leaning):
        return sides
    own, other = _bits(sides.own), _bits(sides.other)
    if own is None or other is None:
        return _out("one of them has no quantized parameters")
    inside = check.difference[0] <= own - other <= check.difference[1]
    text = f"{own:.3f} bits against {other:.3f}: {own - other:+.3f} a quantized parameter, counted"
    return Leaning("reproduced" if inside else "contradicted", 0.0, text)


def _bits(row: Row) -> float | None:
    """Stored bits of a quantized parameter, quantization state included."""
    census = next((record.census for record in row.finished if record.census), None)
    packed = [] if census is None else [one for one in census.rows if one.quantization != "none"]
    elements = sum(one.elements for one in packed)
    return 8 * sum(one.bytes for one in packed) / elements if elements else None


@measure.register
def _(check: RateCheck, ground: Ground) -> Leaning:
    found = [ground.find(names, check.conditions) for names in (check.variant, check.against)]
    if None in found:
        return _not_run([check.variant, check.against], check.conditions)
    arms = [arm for arm in found if arm is not None]
    if any(len(arm.rates) < 3 or arm.best_rate is None for arm in arms):
        return _out("no search of learning rates for both")
    (low, best, high), (low2, best2, high2) = (_around(arm) for arm in arms)
    ratio, least, most = best / best2, low / high2, high / low2
    text = (
        f"best rates {best:g} and {best2:g}: × {ratio:.3g}, by the neighbouring rates tried "
        f"between {least:.3g} and {most:.3g}; one seed a rate"
    )
    if check.ratio[0] <= ratio <= check.ratio[1] and least > 0 and math.isfinite(most):
        return Leaning("reproduced", 0.0, text)
    if most < check.ratio[0] or least > check.ratio[1]:
        return Leaning("contradicted", 0.0, text)
    return Leaning("undecided", 1.0, text, "a finer grid of rates, and one beyond its edges")


def _around(arm: VariantRuns) -> tuple[float, float, float]:
    """The rates below and above the best one that were tried, and the best; open at an edge."""
    rates = sorted(arm.rates)
    best = arm.best_rate or math.nan
    place = rates.index(best)
    below = rates[place - 1] if place else 0.0
    above = rates[place + 1] if place + 1 < len(rates) else math.inf
    return below, best, above


@measure.register
def _(check: SpeedCheck, ground: Ground) -> Leaning:
    sides = _sides(check, ground)
    if isinstance(sides, Leaning):
        return sides
    own, other = _curves(sides.own), _curves(sides.other)
    common = [seed for seed in own if seed in other]
    logs = np.array([math.log(_times_as_fast(own[seed], other[seed])) for seed in common])
    if not len(logs):
        return _out("no training losses on common seeds")
    return _ratio("speed × ", logs, within(*map(math.log, check.ratio)), ground.looks)


def _curves(row: Row) -> dict[int, Floats]:
    """Smoothed training losses by seed."""
    found = {}
    for record in row.finished:
        losses = [point.loss for point in record.training.losses] if record.training else []
        if len(losses) >= 2 * SMOOTHED:
            found[record.plan.seed] = np.convolve(losses, np.ones(SMOOTHED) / SMOOTHED, "valid")
    return found


def _times_as_fast(
    own: Floats,
    other: Floats,
) -> float:
    """Steps of the other over the steps in which this one comes as low as the other ends."""
    reached = np.flatnonzero(own <= other[-1])
    return len(other) / float(reached[0] + 1 if len(reached) else len(own) + 1)


def _sides(check: PairCheck, ground: Ground) -> Sides | Leaning:
    """The rows to compare: at best rates where both were tuned, else at default rates."""
    own = ground.find(check.variant, check.conditions)
    other = ground.find(check.against, check.conditions)
    if own is None or other is None or own.row is None or other.row is None:
        return _not_run([check.variant, check.against], check.conditions, [own, other])
    rates = getattr(check, "rates", "")
    if rates != "default" and own.best is not None and other.best is not None:
        tuned = own.rates or other.rates
        return Sides(own.best, other.best, bool(tuned))
    if own.default is None or other.default is None or rates == "best":
        return _out("not run at the same kind of rate")
    return Sides(own.default, other.default, tuned=False)


def _not_run(
    sides: Sequence[Sequence[str]],
    conditions: Sequence[str],
    found: Sequence[VariantRuns | None] = (),
) -> Leaning:
    missing = [
        names[0] for place, names in enumerate(sides) if place >= len(found) or found[place] is None
    ]
    given = f" with {', '.join(conditions)}" if conditions else ""
    return _out(f"not run{given}: {', '.join(dict.fromkeys(missing))}")


def _out(why: str) -> Leaning:
    return Leaning("out of reach", 1.0, why)
