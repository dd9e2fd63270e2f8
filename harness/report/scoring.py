"""Scoring: one score over all rows, with intervals, and every row against the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from harness.records.record import Score
from harness.report.judging import (
    ALPHA,
    Difference,
    Multiplicity,
    PValues,
    adjust,
    compare_all,
    make_difference,
)
from harness.report.pairing import ScoreKey, read_items
from harness.report.rows import Row
from harness.report.sample import Sample, Scale, make_sample, make_scale, round6
from harness.report.statistics.effects import FEWEST_CLUSTERS, Effect
from harness.report.statistics.multiplicity import holm
from harness.report.statistics.shares import wilson


@dataclass(frozen=True)
class RowScore:
    """A row's own value with its 95 % interval over items and, if there are several, seeds.

    ``low`` and ``high`` are None where too few items were scored to estimate them. ``anchored``
    says that the value is that of the reference plus the difference on their common seeds.
    """

    value: float
    low: float | None
    high: float | None
    standard_error: float | None
    n: int
    seeds: int
    seed_sd: float | None = None
    item_error: float | None = None
    anchored: bool = False


@dataclass(frozen=True)
class Scoring:
    """One score over all rows. ``effects`` are differences from the reference, row minus it."""

    key: ScoreKey
    scale: Scale
    headline: bool
    values: dict[str, RowScore]
    excluded: dict[str, str]
    effects: dict[str, Effect] = field(default_factory=dict)
    differences: dict[str, Difference] = field(default_factory=dict)
    items: int = 0
    clusters: int = 0
    sample: Sample | None = None

    def ordered(self) -> list[str]:
        """Labels from best to worst."""
        return sorted(self.values, key=lambda label: self.values[label].value * self.scale.sign)

    def compared_interval(self, label: str) -> tuple[float, float] | tuple[None, None]:
        """The interval of a row's difference, laid around its value: what comparisons see."""
        found = self.differences.get(label)
        if found is None or found.low is None or found.high is None:
            return None, None
        value = self.values[label].value
        if self.scale.relative:
            base = value / (1 + found.estimate)
            return round6(base * (1 + found.low)), round6(base * (1 + found.high))
        base = value - found.estimate
        return round6(base + found.low), round6(base + found.high)


def score_keys(rows: Sequence[Row]) -> list[ScoreKey]:
    """Every score after training: headline scores first, perplexity before others."""
    found: dict[ScoreKey, bool] = {}
    for row in rows:
        for record in row.finished:
            for score in record.scores:
                if score.stage == "after" and score.task != "fidelity":  # has its own section
                    key = ScoreKey(score.task, score.metric, score.precision)
                    found[key] = found.get(key, False) or score.headline

    def order(key: ScoreKey) -> tuple[object, ...]:
        held_out = (key.metric != "perplexity", key.task != "held_out")
        return key.precision != "training", not found[key], *held_out, key

    return sorted(found, key=order)


def make_scoring(
    rows: Sequence[Row], key: ScoreKey, reference: str | None, margin: float
) -> Scoring:
    """One score that at least one finished run has, its differences corrected by Holm's method."""
    scores = {
        row.label: [score for record in row.finished if (score := key.find(record))] for row in rows
    }
    every = [score for found in scores.values() for score in found]
    scale = make_scale(every, margin)
    reading = read_items(rows, key)
    sample = None if reading.aligned is None else make_sample(reading.aligned, scale)
    effects = {} if sample is None else compare_all(sample, reference)
    values = {
        label: _row_score(label, found, sample, scale) for label, found in scores.items() if found
    }
    if sample is not None and reference in values and reference in sample.labels:
        values |= _anchored(values, sample, scale, effects, reference)
    scoring = Scoring(
        key=key,
        scale=scale,
        headline=any(score.headline for score in every),
        values=values,
        excluded=reading.excluded,
        effects=effects,
        items=sample.aligned.items if sample else 0,
        clusters=sample.aligned.clusters if sample else 0,
        sample=sample,
    )
    return with_differences(scoring, adjust(effects, dict.fromkeys(effects, scale.bound), holm))


def _row_score(
    label: str, scores: Sequence[Score], sample: Sample | None, scale: Scale
) -> RowScore:
    if sample is None or not sample.columns(label):
        value = round6(float(np.mean([score.value for score in scores])))
        return RowScore(value, None, None, None, scores[0].n, len(scores))
    own = sample.own(label)
    low, high = _own_interval(sample, label, own, scale)
    value = scale.value(own.estimate)
    unit = value if scale.relative else 1.0
    known = own.clusters >= FEWEST_CLUSTERS
    seed_sd = None
    if own.noise.seeds is not None:
        seed_sd = round6(math.sqrt(own.noise.seeds * own.seeds) * unit)
    return RowScore(
        value=round6(value),
        low=None if low is None else round6(low),
        high=None if high is None else round6(high),
        standard_error=round6(own.standard_error * unit) if known else None,
        n=sample.aligned.items,
        seeds=own.seeds,
        seed_sd=seed_sd,
        item_error=round6(math.sqrt(own.noise.items) * unit) if known else None,
    )


def _own_interval(
    sample: Sample, label: str, own: Effect, scale: Scale
) -> tuple[float | None, float | None]:
    """The interval of a row's own value, within the range that the score can have."""
    if own.obstacle == "few items":
        return None, None
    share = sample.own_share(label)
    if share is not None:
        n, noise = share
        return wilson(own.estimate, n, noise.half_width(ALPHA) / math.sqrt(noise.items))
    half = own.noise.half_width(ALPHA)
    if scale.ceiling is not None:
        return _logit_interval(own.estimate / scale.ceiling, half / scale.ceiling, scale.ceiling)
    return scale.value(own.estimate - half), scale.value(own.estimate + half)


def _logit_interval(
    share: float, half: float, ceiling: float
) -> tuple[float, float] | tuple[None, None]:
    """An interval made on the scale of log odds, which stays between 0 and the ceiling."""
    if not 0 < share < 1:
        return None, None
    middle, reach = math.log(share / (1 - share)), half / (share * (1 - share))
    low, high = (1 / (1 + math.exp(-end)) for end in (middle - reach, middle + reach))
    return low * ceiling, high * ceiling


def _anchored(
    values: Mapping[str, RowScore],
    sample: Sample,
    scale: Scale,
    effects: Mapping[str, Effect],
    reference: str,
) -> dict[str, RowScore]:
    """Rows with other seeds than the reference, placed by the difference on common seeds.

    The rank and the difference from the reference then come from one estimate.
    """
    base = sample.own(reference).estimate
    moved = {}
    for label, found in effects.items():
        both_train = sample.trains(label) and sample.trains(reference)
        if both_train and set(sample.seeds(label)) != set(sample.seeds(reference)):
            shift = base + found.estimate - sample.own(label).estimate
            moved[label] = _shifted(values[label], shift, scale)
    return moved


def _shifted(score: RowScore, shift: float, scale: Scale) -> RowScore:
    def move(value: float | None) -> float | None:
        if value is None:
            return None
        if scale.relative:
            return round6(value * math.exp(shift))
        # A share that is moved still lies between nothing and everything.
        moved = value + shift if scale.ceiling is None else max(value + shift, 0.0)
        return round6(moved if scale.ceiling is None else min(moved, scale.ceiling))

    moved = move(score.value)
    assert moved is not None  # noqa: S101 - a score has a value
    return replace(score, value=moved, low=move(score.low), high=move(score.high), anchored=True)


def with_differences(
    scoring: Scoring, adjusted: Mapping[str, PValues], *, alpha: float = ALPHA
) -> Scoring:
    """The scoring with every effect judged by corrected p-values."""
    tests = sum(not found.obstacle for found in scoring.effects.values())
    family = Multiplicity(max(tests, 1), alpha)
    differences = {
        label: make_difference(label, found, adjusted.get(label), scoring.scale, family)
        for label, found in scoring.effects.items()
    }
    return replace(scoring, differences=differences)
