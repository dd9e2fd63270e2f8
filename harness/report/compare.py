"""Compare: two sides (runs, variants or folders of records) paired on the same items."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from harness.report.judging import ALPHA, PValues, adjust, make_difference
from harness.report.machines import named_apart, same_machine
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
Read = Callable[[Row], float | None]


@dataclass(frozen=True)
class ComparedCost:
    """Something that a row costs; ``read`` takes the row and the measure of memory."""

    name: str
    unit: str
    direction: Literal["lower", "higher"]
    read: Callable[[Row, str], float | None]

    def of(self, kind: str) -> Read:
        """The reader of this cost, by one measure of memory."""
        return lambda row: self.read(row, kind)

    def unit_of(self, kind: str) -> str:
        """The unit; that of memory names its measure."""
        return self.unit.format(memory=MEMORY_KINDS.get(kind, ""))


WEIGHTS = ComparedCost("weights", "bytes", "lower", lambda row, _: row.weight_bytes)
COSTS = (
    ComparedCost("memory", "bytes, {memory}", "lower", lambda row, kind: row.peak_bytes(kind)),
    WEIGHTS,
    ComparedCost("throughput", "tokens per second", "higher", lambda row, _: row.tokens_per_second),
    ComparedCost("time", "seconds of training", "lower", lambda row, _: row.phase_seconds("train")),
    ComparedCost("energy", "joules", "lower", lambda row, _: row.energy_joules()),
)


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
class Unlike:
    """A cost that both sides have and that cannot be compared: its two values, and why not."""

    name: str
    unit: str
    before: float
    after: float
    reason: str


@dataclass(frozen=True)
class ComparedRow:
    """A row of A beside a row of B, with every quantity that both have."""

    label: str
    changes: tuple[Change, ...]
    missing: dict[str, str]
    failed: str | None = None
    unlike: tuple[Unlike, ...] = ()


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
    costs, unlike = _costs(rows)
    return ComparedRow(label, (*changes, *costs), missing, unlike=unlike)


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


def _costs(rows: tuple[Row, Row]) -> tuple[list[Change], tuple[Unlike, ...]]:
    """Costs by seed, compared by relative change; the interval is over common seeds.

    Of two devices only the bytes of the weights are compared.
    """
    if same_machine(*rows):
        kind = memory_kind(rows)
        found = ((cost, _cost_change(rows, cost.of(kind))) for cost in COSTS)
        return [_named(change, cost, kind) for cost, change in found if change is not None], ()
    weights = _cost_change(rows, WEIGHTS.of(""))
    compared = [] if weights is None else [_named(weights, WEIGHTS, "")]
    return compared, tuple(_unlike(rows))


def _named(change: Change, cost: ComparedCost, kind: str) -> Change:
    return replace(change, name=cost.name, unit=cost.unit_of(kind), direction=cost.direction)


def _unlike(rows: tuple[Row, Row]) -> Iterator[Unlike]:
    """What was measured on two devices, each by the measure of memory that it has."""
    names = [f"{row.label} on {named_apart(row, rows)}" for row in rows]
    kinds = [memory_kind([row]) for row in rows]
    for cost in COSTS:
        if cost is WEIGHTS:
            continue
        before, after = (cost.of(kind)(row) for kind, row in zip(kinds, rows, strict=True))
        if before and after:
            units = dict.fromkeys(map(cost.unit_of, kinds))
            reason = f"measured on two devices: {', '.join(names)}"
            yield Unlike(cost.name, " and ".join(units), round6(before), round6(after), reason)


def _cost_change(rows: tuple[Row, Row], read: Read) -> Change | None:
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
