"""Ratios: a claim about what two variants cost, store, or how fast they learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from harness.records.record import RunRecord
from harness.report.claims.compared import Sides, out_of_reach, sides_of, who_lacks
from harness.report.claims.decide import Leaning, LookCorrection, Regions, lean, said_of, within
from harness.report.claims.ground import Ground
from harness.report.machines import named_apart, same_machine
from harness.report.rows import Row, memory_kind
from harness.report.statistics.noise import Floats, Noise
from harness.spec.claim import BitsCheck, CostCheck, SpeedCheck

SMOOTHED = 5  # steps of a running mean
FEWEST_RUNS = 2
ALLOCATED = "peak_allocated_bytes"


def compare_costs(check: CostCheck, ground: Ground) -> Leaning:
    """The ratio of a cost of two variants, over the seeds that both have."""
    sides = sides_of(check, ground)
    if isinstance(sides, Leaning):
        return sides
    why_not = _unlike(check.cost, (sides.own, sides.other))
    if why_not:
        return out_of_reach(why_not)
    read = _cost_reader(check.cost, (sides.own, sides.other))
    costs = [_by_seed(row, read) for row in (sides.own, sides.other)]
    logs = _logs(costs[0], costs[1])
    if not len(logs):
        return out_of_reach(_unmeasured(check.cost, sides, read))
    where = within(*map(math.log, check.ratio))
    if check.cost == "weights":
        return _exact_ratio(f"{check.cost} × ", float(logs.mean()), where)
    return _ratio(f"{check.cost} × ", logs, where, ground.correction(sides.own, sides.other))


def _unlike(cost: str, rows: tuple[Row, Row]) -> str:
    """Why a cost of these rows cannot be compared; empty where it can."""
    if cost != "weights" and not same_machine(*rows):
        where = " and ".join(named_apart(row, rows) for row in rows)
        return f"their {cost} was measured on {where}"
    records = [record for row in rows for record in row.finished]
    if any(record.shared for record in records) and cost in ("time", "throughput", "energy"):
        return f"the runs shared their device, so their {cost} is not their own"
    if any(record.together > 1 for record in records):
        return f"runs trained together, so their {cost} is a share of all of theirs"
    return ""


def _unmeasured(cost: str, sides: Sides, read: Callable[[Row], float | None]) -> str:
    """Which side has no such cost, or that both have it of different seeds."""
    lacking = who_lacks((sides.own, sides.other), lambda row: bool(_by_seed(row, read)))
    if lacking:
        return f"{cost} was not measured in whole runs of {lacking}"
    return f"{cost} was measured in whole runs of both, but of no seed in common"


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
    """A cost of each seed's run; one that was resumed has only measured the rest of itself."""
    found: dict[int, float] = {}
    for run in row.runs:
        value = read(replace(row, runs=(run,))) if _is_whole(run.record) else None
        if value:
            found[run.record.plan.seed] = value
    return found


def _is_whole(record: RunRecord) -> bool:
    return record.status == "ok" and not record.resumed


def _logs(own: dict[int, float], other: dict[int, float]) -> Floats:
    """Log ratios on common seeds."""
    common = sorted(set(own) & set(other))
    return np.array([math.log(own[seed] / other[seed]) for seed in common])


def _exact_ratio(name: str, log: float, where: Regions) -> Leaning:
    """A ratio without noise."""
    inside = where.fits[0] <= log <= where.fits[1]
    text = f"{name}{math.exp(log):.3g}"
    return Leaning("reproduced" if inside else "contradicted", text, short=text)


def _ratio(name: str, logs: Floats, where: Regions, correction: LookCorrection) -> Leaning:
    """A ratio over seeds: the runs are the items, so Student's interval of their mean.

    Where all runs agree, it is one of something that has no noise.
    """
    if len(logs) >= FEWEST_RUNS and float(np.ptp(logs)) == 0:
        return _exact_ratio(name, float(logs.mean()), where)
    return _noisy_ratio(name, logs, where, correction)


def _noisy_ratio(name: str, logs: Floats, where: Regions, correction: LookCorrection) -> Leaning:
    """The same for what is never exact, also where all runs agree."""
    mean = float(logs.mean())
    text = f"{name}{math.exp(mean):.3g}"
    if len(logs) < FEWEST_RUNS:
        return Leaning("undecided", f"{text} (one run each)", "three seeds or more", text)
    noise = Noise.of_mean(logs)
    errors = lean(partial(noise.interval, mean), where, correction.looks)
    error = correction.error(errors, where)
    low, high = (math.exp(end) for end in noise.interval(mean, error))
    short = f"{text} [{low:.3g}, {high:.3g}]{said_of(error)}"
    return Leaning(errors.verdict(), f"{short}, {len(logs)} seeds", "more seeds", short, errors)


def compare_bits(check: BitsCheck, ground: Ground) -> Leaning:
    """The difference of the stored bits of a quantized parameter, which are counted: no noise."""
    sides = sides_of(check, ground)
    if isinstance(sides, Leaning):
        return sides
    own, other = _bits(sides.own), _bits(sides.other)
    if own is None or other is None:
        plain = who_lacks((sides.own, sides.other), lambda row: _bits(row) is not None)
        return out_of_reach(f"no quantized parameters: {plain}")
    inside = check.difference[0] <= own - other <= check.difference[1]
    text = f"{own:.3f} bits against {other:.3f}: {own - other:+.3f} a quantized parameter, counted"
    short = f"{own - other:+.3f} bits a parameter"
    return Leaning("reproduced" if inside else "contradicted", text, short=short)


def _bits(row: Row) -> float | None:
    """Stored bits of a quantized parameter, quantization state included."""
    census = next((record.census for record in row.finished if record.census), None)
    packed = [] if census is None else [one for one in census.rows if one.quantization != "none"]
    elements = sum(one.elements for one in packed)
    return 8 * sum(one.bytes for one in packed) / elements if elements else None


def compare_speed(check: SpeedCheck, ground: Ground) -> Leaning:
    """How many times as fast one variant comes to the lowest loss to which both come.

    By the validation loss where both were validated as they trained, else by the training loss,
    whose batches differ too much for short runs.
    """
    sides = sides_of(check, ground)
    if isinstance(sides, Leaning):
        return sides
    own, other = _curves(sides.own), _curves(sides.other)
    common = [s for s in own if s in other and own[s].validated == other[s].validated]
    validated = [seed for seed in common if own[seed].validated]
    chosen = validated or common
    if not chosen:
        return out_of_reach("no losses of the same kind on common seeds")
    logs = np.array([math.log(times_as_fast(own[seed], other[seed])) for seed in chosen])
    kind = "validation" if validated else "training"
    correction = ground.correction(sides.own, sides.other)
    found = _noisy_ratio("speed × ", logs, within(*map(math.log, check.ratio)), correction)
    return replace(found, text=found.text.replace("speed", f"speed by {kind} loss", 1))


@dataclass(frozen=True)
class Curve:
    """Losses after so many steps, in training or (``validated``) on the validation split."""

    steps: Floats
    losses: Floats
    validated: bool


def _curves(row: Row) -> dict[int, Curve]:
    """Curves by seed: validation losses where there are any, else smoothed training losses."""
    found = {}
    for record in row.finished:
        training = record.training
        if training is None:
            continue
        if training.validation is not None:
            points = np.array([(float(one.step), one.loss) for one in training.validation.points])
            found[record.plan.seed] = Curve(points[:, 0], points[:, 1], validated=True)
            continue
        losses = [point.loss for point in training.losses]
        if len(losses) >= 2 * SMOOTHED:
            smooth = np.convolve(losses, np.ones(SMOOTHED) / SMOOTHED, "valid")
            steps = np.arange(1.0, len(smooth) + 1)
            found[record.plan.seed] = Curve(steps, smooth, validated=False)
    return found


def times_as_fast(own: Curve, other: Curve) -> float:
    """Steps of the other over the steps of this one to the lowest loss to which both come.

    Between two losses a curve is taken to fall in a straight line.
    """
    target = max(float(own.losses.min()), float(other.losses.min()))
    return _steps_to(target, other) / _steps_to(target, own)


def _steps_to(target: float, curve: Curve) -> float:
    """Steps after which a curve first comes to ``target``; at least one."""
    at = int(np.flatnonzero(curve.losses <= target)[0])
    if not at:
        return max(float(curve.steps[0]), 1.0)
    (before, here), (first, last) = curve.losses[at - 1 : at + 1], curve.steps[at - 1 : at + 1]
    share = (before - target) / (before - here)
    return max(float(first + share * (last - first)), 1.0)
