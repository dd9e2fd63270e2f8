"""Compare: two sides (runs, variants or folders of records) paired on the same items."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.report.judging import ALPHA, PValues, adjust, make_difference
from harness.report.matching import match_rows
from harness.report.pairing import ScoreKey, read_items
from harness.report.rows import MEMORY_KINDS, Row, memory_kind
from harness.report.sample import Scale, make_sample, make_scale, round6
from harness.report.scoring import score_keys
from harness.report.sides import Side
from harness.report.statistics.effects import FEWEST_CLUSTERS, Effect, Obstacle
from harness.report.statistics.multiplicity import holm
from harness.report.statistics.noise import Noise
from harness.report.statistics.verdicts import Verdict

BEFORE, AFTER = "A", "B"
COSTS = ("memory", "weights", "throughput", "time", "energy")


@dataclass(frozen=True)
class Change:
    """One quantity on both sides. ``estimate`` is B against A; the interval is 95 %.

    Relative changes are shares (0.01 is one per cent). ``low`` and ``high`` are None where no
    spread is known (a cost with one seed) or ``obstacle`` says why the data allow none. With one
    training on a side, ``items_low`` and ``items_high`` are the interval over items alone: what
    other items would change about these two trainings.
    """

    name: str
    unit: str
    direction: str
    relative: bool
    share: bool
    before: float
    after: float
    estimate: float
    low: float | None = None
    high: float | None = None
    adjusted_p: float | None = None
    verdict: Verdict | None = None
    seeds: int = 1
    items: int | None = None
    obstacle: Obstacle = ""
    items_low: float | None = None
    items_high: float | None = None


@dataclass(frozen=True)
class ComparedRow:
    """A row of A beside a row of B, with every quantity that both have."""

    label: str
    changes: tuple[Change, ...]
    missing: dict[str, str]
    failed: str | None = None


@dataclass(frozen=True)
class Comparison:
    """B against A."""

    before: Side
    after: Side
    pairs: tuple[ComparedRow, ...]
    unmatched: tuple[str, ...]
    margin: float


def compare(before: Side, after: Side, margin: float = 0.01) -> Comparison:
    """Compare B with A: one row each as they are, several rows by variant and setting.

    Raises:
        UserError: the two sides have no variant in common.
    """
    matched = match_rows(before, after)
    used = {id(row) for pair in matched for row in pair}
    unmatched = {row.label for row in (*before.rows, *after.rows) if id(row) not in used}
    pairs = tuple(_pair(a, b, margin) for a, b in matched)
    return Comparison(before, after, pairs, tuple(sorted(unmatched)), margin)


def _pair(before: Row, after: Row, margin: float) -> ComparedRow:
    rows = (replace(before, label=BEFORE), replace(after, label=AFTER))
    label = before.label if before.label == after.label else f"{after.label} against {before.label}"
    failed = next((f"{row.label} has no finished run" for row in rows if not row.finished), None)
    if failed is not None:
        return ComparedRow(label, (), {}, failed)
    missing: dict[str, str] = {}
    scored = []
    for key in score_keys(rows):
        change = _score_change(rows, key, margin, missing)
        if change is not None:
            scored.append(change)
    effects = {change.name: effect for change, effect, _ in scored}
    bounds = {change.name: scale.bound for change, _, scale in scored}
    adjusted = adjust(effects, bounds, holm)
    changes = [
        _judged(change, effect, scale, adjusted.get(change.name))
        for change, effect, scale in scored
    ]
    return ComparedRow(label, (*changes, *_cost_changes(rows)), missing)


def _score_change(
    rows: tuple[Row, Row], key: ScoreKey, margin: float, missing: dict[str, str]
) -> tuple[Change, Effect, Scale] | None:
    scores = [[s for record in row.finished if (s := key.find(record))] for row in rows]
    if not all(scores):
        missing[key.title] = f"{BEFORE if not scores[0] else AFTER} has no such score"
        return None
    reading = read_items(rows, key)
    if reading.aligned is None or len(set(reading.aligned.labels)) < 2:
        missing[key.title] = "; ".join(reading.excluded.values()) or "no per-item values"
        return None
    scale = make_scale([*scores[0], *scores[1]], margin)
    sample = make_sample(reading.aligned, scale)
    effect = sample.paired(AFTER, BEFORE)
    if effect is None:
        missing[key.title] = "no seed in common"
        return None
    change = Change(
        name=key.title,
        unit=scores[0][0].unit,
        direction=scale.direction,
        relative=scale.relative,
        share=scale.share,
        before=round6(scale.value(sample.own(BEFORE).estimate)),
        after=round6(scale.value(sample.own(AFTER).estimate)),
        estimate=0.0,
        seeds=effect.seeds,
        items=reading.aligned.items,
    )
    return change, effect, scale


def _judged(change: Change, effect: Effect, scale: Scale, adjusted: PValues | None) -> Change:
    found = make_difference(change.name, effect, adjusted, scale)
    by_items: tuple[float, float] | tuple[None, None] = (None, None)
    if effect.obstacle == "one training" and effect.clusters >= FEWEST_CLUSTERS:
        low, high = effect.interval(ALPHA)
        by_items = round6(scale.difference(low)), round6(scale.difference(high))
    return replace(
        change,
        estimate=found.estimate,
        low=found.low,
        high=found.high,
        adjusted_p=found.adjusted_p,
        verdict=found.verdict,
        obstacle=found.obstacle,
        items_low=by_items[0],
        items_high=by_items[1],
    )


def _cost_changes(rows: tuple[Row, Row]) -> list[Change]:
    """Costs by seed, compared by relative change; the interval is over common seeds."""
    kind = memory_kind(rows)
    costs: tuple[tuple[str, str, str, Callable[[Row], float | None]], ...] = (
        ("memory", f"bytes, {MEMORY_KINDS[kind]}", "lower", lambda row: row.peak_bytes(kind)),
        ("weights", "bytes", "lower", lambda row: row.weight_bytes),
        ("throughput", "tokens per second", "higher", lambda row: row.tokens_per_second),
        ("time", "seconds of training", "lower", lambda row: row.phase_seconds("train")),
        ("energy", "joules", "lower", lambda row: row.energy_joules()),
    )
    changes = []
    for name, unit, direction, read in costs:
        change = _cost_change(rows, read)
        if change is not None:
            changes.append(replace(change, name=name, unit=unit, direction=direction))
    return changes


def _cost_change(rows: tuple[Row, Row], read: Callable[[Row], float | None]) -> Change | None:
    by_seed = [{seed: read(_one_seed(row, seed)) for seed in row.seeds} for row in rows]
    known = [{seed: v for seed, v in side.items() if v} for side in by_seed]
    if not all(known):
        return None
    common = sorted(set(known[0]) & set(known[1]))
    if common:  # the estimate is theirs, so the two values beside it are, too
        known = [{seed: side[seed] for seed in common} for side in known]
    before, after = (math.exp(_mean_log(list(side.values()))) for side in known)
    change = Change(
        name="",
        unit="",
        direction="lower",
        relative=True,
        share=False,
        before=round6(before),
        after=round6(after),
        estimate=round6(after / before - 1),
        seeds=len(common),
    )
    if len(common) < 2:
        return change
    logs = np.array([math.log(known[1][seed] / known[0][seed]) for seed in common])
    mean = float(logs.mean())
    low, high = Noise.of_mean(logs).interval(mean, ALPHA)  # the runs are the items here
    return replace(
        change,
        estimate=round6(math.expm1(mean)),
        low=round6(math.expm1(low)),
        high=round6(math.expm1(high)),
    )


def _one_seed(row: Row, seed: int) -> Row:
    return replace(row, runs=tuple(run for run in row.runs if run.record.plan.seed == seed))


def _mean_log(values: Sequence[float]) -> float:
    return sum(math.log(value) for value in values) / len(values)
