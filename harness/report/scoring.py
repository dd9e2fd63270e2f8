"""Scoring: one score over all rows, with intervals, and every row against the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.records.record import Score
from harness.report.items import ScoreKey, read_items
from harness.report.rows import Row
from harness.report.sample import Sample, Scale, make_sample, make_scale, round6
from harness.report.statistics import (
    Effect,
    Floats,
    Needed,
    Verdict,
    holm,
    needed,
    pool_seeds,
    verdict,
)


@dataclass(frozen=True)
class RowScore:
    """A row's own value with its 95 % interval over items and, if there are several, seeds."""

    value: float
    low: float | None
    high: float | None
    standard_error: float | None
    n: int
    seeds: int
    seed_sd: float | None = None
    item_error: float | None = None


@dataclass(frozen=True)
class Difference:
    """A row against the reference, in the terms shown; ``worse_by`` is on the additive scale."""

    label: str
    estimate: float
    low: float
    high: float
    p_value: float
    adjusted_p: float
    verdict: Verdict
    not_worse: bool
    worse_by: Effect
    needed: Needed | None


@dataclass(frozen=True)
class Scoring:
    """One score over all rows."""

    key: ScoreKey
    scale: Scale
    headline: bool
    values: dict[str, RowScore]
    differences: dict[str, Difference]
    excluded: dict[str, str]
    best_chance: dict[str, float] = field(default_factory=dict)
    items: int = 0
    clusters: int = 0
    sample: Sample | None = None

    def ordered(self) -> list[str]:
        """Labels from best to worst."""
        return sorted(self.values, key=lambda label: self.values[label].value * self.scale.sign)

    def compared_interval(self, label: str) -> tuple[float, float] | tuple[None, None]:
        """The interval of a row's difference, laid around its value: what comparisons see."""
        found = self.differences.get(label)
        if found is None:
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
    rows: Sequence[Row], key: ScoreKey, reference: str | None, margin: float, resamples: int
) -> Scoring:
    """Compare all rows with the reference on one score that at least one finished run has."""
    scores = {
        row.label: [score for record in row.finished if (score := key.find(record))] for row in rows
    }
    every = [score for found in scores.values() for score in found]
    scale = make_scale(every, margin)
    reading = read_items(rows, key)
    sample = None if reading.aligned is None else make_sample(reading.aligned, scale, resamples)
    values = {
        label: _row_score(label, found, sample, scale) for label, found in scores.items() if found
    }
    return Scoring(
        key=key,
        scale=scale,
        headline=any(score.headline for score in every),
        values=values,
        differences={} if sample is None else compare_all(sample, reference, scale),
        excluded=reading.excluded,
        best_chance={} if sample is None else _best_chance(sample, scale),
        items=sample.aligned.items if sample else 0,
        clusters=sample.aligned.clusters if sample else 0,
        sample=sample,
    )


def _row_score(
    label: str, scores: Sequence[Score], sample: Sample | None, scale: Scale
) -> RowScore:
    if sample is None or not sample.columns(label):
        value = round6(float(np.mean([score.value for score in scores])))
        return RowScore(value, None, None, scores[0].standard_error, scores[0].n, len(scores))
    own = sample.own(label)
    low, high = own.interval()
    value = scale.value(own.estimate)
    unit = value if scale.relative else 1.0
    seed_sd = None
    if own.seed_variance is not None:
        seed_sd = round6(math.sqrt(own.seed_variance * own.seeds) * unit)
    return RowScore(
        value=round6(value),
        low=round6(scale.value(low)),
        high=round6(scale.value(high)),
        standard_error=round6(own.standard_error * unit),
        n=sample.aligned.items,
        seeds=own.seeds,
        seed_sd=seed_sd,
        item_error=round6(math.sqrt(own.item_variance) * unit),
    )


def compare_all(sample: Sample, reference: str | None, scale: Scale) -> dict[str, Difference]:
    """Every row of a sample against the reference, p-values corrected by Holm's method."""
    if reference is None or not sample.columns(reference):
        return {}
    effects = {
        label: found
        for label in dict.fromkeys(sample.aligned.labels)
        if label != reference and (found := sample.paired(label, reference)) is not None
    }
    effects |= _pooled(sample, effects, reference)
    adjusted = holm([found.p_value for found in effects.values()])
    return {
        label: make_difference(label, found, p, scale)
        for (label, found), p in zip(effects.items(), adjusted, strict=True)
    }


def _pooled(sample: Sample, effects: dict[str, Effect], reference: str) -> dict[str, Effect]:
    """The effects of trained rows with a common seed variance; noise of untrained ones differs."""
    if not sample.trains(reference):
        return {}
    trained = [label for label in effects if sample.trains(label)]
    pooled = pool_seeds([effects[label] for label in trained])
    return dict(zip(trained, pooled, strict=True))


def make_difference(label: str, found: Effect, adjusted_p: float, scale: Scale) -> Difference:
    """Judge one paired difference and put it into the terms shown."""
    worse_by = found if scale.sign > 0 else found.negated()
    judged = verdict(worse_by, adjusted_p, scale.bound)
    tests = max(1.0, adjusted_p / found.p_value)
    low, high = found.interval()
    return Difference(
        label=label,
        estimate=round6(scale.difference(found.estimate)),
        low=round6(scale.difference(low)),
        high=round6(scale.difference(high)),
        p_value=round6(found.p_value),
        adjusted_p=round6(adjusted_p),
        verdict=judged,
        not_worse=worse_by.interval()[1] < scale.bound,
        worse_by=worse_by,
        needed=needed(worse_by, scale.bound, tests) if judged == "undecided" else None,
    )


def _best_chance(sample: Sample, scale: Scale) -> dict[str, float]:
    """Share of replicates (items and, where known, seeds redrawn) in which a row is the best."""
    labels = list(dict.fromkeys(sample.aligned.labels))
    draws = np.random.default_rng(1)
    joint = np.column_stack([_with_seed_noise(sample, label, draws) for label in labels])
    best = np.bincount((joint * scale.sign).argmin(axis=1), minlength=len(labels)) / len(joint)
    return {label: round6(float(share)) for label, share in zip(labels, best, strict=True)}


def _with_seed_noise(sample: Sample, label: str, draws: np.random.Generator) -> Floats:
    columns = sample.columns(label)
    mean: Floats = sample.replicates[:, columns].mean(axis=1)
    if len(columns) == 1:
        return mean
    error = sample.values[columns].std(ddof=1) / math.sqrt(len(columns))
    noisy: Floats = mean + error * draws.standard_t(len(columns) - 1, size=len(mean))
    return noisy
