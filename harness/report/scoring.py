"""Scoring: which scores a report has, their per-item values, and the effects between rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.plan import Plan
from harness.record import RunRecord, Score
from harness.report.rows import Row
from harness.report.statistics import (
    Effect,
    Floats,
    Needed,
    Verdict,
    effect,
    holm,
    needed,
    resample,
    verdict,
)
from harness.store import StoredRun

SHARES = frozenset({"fraction", "share", "accuracy", "probability"})


@dataclass(frozen=True, order=True)
class ScoreKey:
    """What makes two scores the same quantity. The precision is part of it."""

    task: str
    metric: str
    precision: str
    stage: str = "after"

    @property
    def title(self) -> str:
        """The name shown to readers."""
        name = (
            self.metric if self.task in ("held_out", self.metric) else f"{self.task} {self.metric}"
        )
        return name if self.precision == "training" else f"{name} ({self.precision})"


@dataclass(frozen=True)
class Difference:
    """A row against the reference. Numbers are on the scale shown: relative or absolute."""

    label: str
    estimate: float
    low: float
    high: float
    p_value: float
    adjusted_p: float
    verdict: Verdict
    worse_by: Effect
    not_worse: bool
    needed: Needed | None
    items: int


@dataclass(frozen=True)
class RowScore:
    """A row's own value with its interval over items and seeds."""

    label: str
    value: float
    low: float | None
    high: float | None
    standard_error: float | None
    n: int
    seeds: int
    seed_sd: float | None = None
    item_sd: float | None = None


@dataclass(frozen=True)
class Scoring:
    """One score over all rows."""

    key: ScoreKey
    unit: str
    direction: str
    relative: bool
    margin: float
    headline: bool
    values: dict[str, RowScore]
    differences: dict[str, Difference]
    excluded: dict[str, str]
    best_chance: dict[str, float] = field(default_factory=dict)
    items: int = 0
    clusters: int = 0

    @property
    def worse_sign(self) -> int:
        """+1 when a higher value is worse."""
        return 1 if self.direction == "lower" else -1

    def ordered(self) -> list[str]:
        """Labels from best to worst."""
        return sorted(self.values, key=lambda label: self.values[label].value * self.worse_sign)


@dataclass(frozen=True)
class _Column:
    """Per-cluster sums of one run."""

    label: str
    seed: int
    trains: bool
    items: tuple[Any, ...]
    numerator: Floats
    denominator: Floats
    cluster: tuple[Any, ...]


@dataclass(frozen=True)
class _Matrix:
    """Aligned runs: values per run and their replicates, on the additive scale."""

    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    trains: tuple[bool, ...]
    values: Floats
    replicates: Floats
    clusters: int
    items: int

    def of(self, label: str) -> list[int]:
        """Columns of a row."""
        return [index for index, name in enumerate(self.labels) if name == label]


def score_keys(rows: Sequence[Row]) -> list[ScoreKey]:
    """Every score after training, headline scores first, perplexity before others."""
    found: dict[ScoreKey, bool] = {}
    for row in rows:
        for record in row.finished:
            for score in record.scores:
                if score.stage == "after":
                    key = ScoreKey(score.task, score.metric, score.precision)
                    found[key] = found.get(key, False) or score.headline
    return sorted(
        found,
        key=lambda key: (
            key.precision != "training",
            not found[key],
            key.metric != "perplexity",
            key,
        ),
    )


def find_score(record: RunRecord, key: ScoreKey) -> Score | None:
    """A record's score of that key."""
    return record.score(key.task, key.metric, key.stage, key.precision)


def make_scoring(
    rows: Sequence[Row], key: ScoreKey, reference: str | None, margin: float, resamples: int
) -> Scoring:
    """Compare all rows with the reference on one score."""
    first = next(s for row in rows for r in row.finished if (s := find_score(r, key)))
    columns, excluded = _columns(rows, key)
    points = [score.value for row in rows for r in row.finished if (score := find_score(r, key))]
    relative = first.transform == "exp" or (
        first.unit not in SHARES and first.direction == "lower" and min(points) > 0
    )
    scale = 1.0
    if not relative and first.unit not in SHARES:
        scale = max(abs(float(np.median(points))), 1e-12)
    matrix = _align(columns, excluded, first.transform, relative, resamples)
    values = _row_scores(rows, key, matrix, relative)
    differences = (
        _differences(matrix, reference, first.direction, relative, margin * scale)
        if matrix is not None and reference is not None
        else {}
    )
    return Scoring(
        key=key,
        unit=first.unit,
        direction=first.direction,
        relative=relative,
        margin=margin * scale,
        headline=first.headline,
        values=values,
        differences=differences,
        excluded=excluded,
        best_chance=_best_chance(matrix, first.direction) if matrix is not None else {},
        items=matrix.items if matrix else 0,
        clusters=matrix.clusters if matrix else 0,
    )


def _protocol(plan: Plan) -> tuple[object, ...]:
    """What must agree before items of two runs may be taken for the same."""
    return plan.model.name, plan.corpus_sha256, plan.corpus, plan.score.window, plan.score.stride


def _columns(rows: Sequence[Row], key: ScoreKey) -> tuple[list[_Column], dict[str, str]]:
    excluded: dict[str, str] = {}
    common = Counter(_protocol(row.plan) for row in rows if row.finished).most_common(1)
    columns = []
    for row in rows:
        if not row.finished:
            continue
        if _protocol(row.plan) != common[0][0]:
            excluded[row.label] = "another model, corpus or scoring window"
            continue
        for run in row.runs:
            score = find_score(run.record, key) if run.record.status == "ok" else None
            if score is None:
                continue
            column = _read_column(row, run, score)
            if column is None:
                excluded[row.label] = "no per-item values"
            else:
                columns.append(column)
    return columns, excluded


def _read_column(row: Row, run: StoredRun, score: Score) -> _Column | None:
    if score.items is None:
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = run.folder.path / score.items
    if not path.is_file():
        return None
    try:
        table = pq.read_table(
            path, columns=["item", "cluster", "numerator", "denominator"], use_threads=False
        )
    except (pa.ArrowException, OSError):
        return None
    return _Column(
        label=row.label,
        seed=run.record.plan.seed,
        trains=row.plan.trains,
        items=tuple(table["item"].to_pylist()),
        cluster=tuple(table["cluster"].to_pylist()),
        numerator=np.asarray(table["numerator"].to_numpy(), dtype=np.float64),
        denominator=np.asarray(table["denominator"].to_numpy(), dtype=np.float64),
    )


def _align(
    columns: list[_Column],
    excluded: dict[str, str],
    transform: str,
    relative: bool,  # noqa: FBT001 - a property of the score, passed on
    resamples: int,
) -> _Matrix | None:
    """Bring runs onto the item set that most of them share, and resample its clusters."""
    if not columns:
        return None
    wanted = Counter(frozenset(column.items) for column in columns).most_common(1)[0][0]
    kept = []
    for column in columns:
        if wanted <= set(column.items):
            kept.append(column)
        else:
            excluded[column.label] = "scored on other items"
    reference = kept[0]
    items = [item for item in reference.items if item in wanted]
    cluster_of = dict(zip(reference.items, reference.cluster, strict=True))
    clusters = {name: index for index, name in enumerate(dict.fromkeys(map(cluster_of.get, items)))}
    group = np.array([clusters[cluster_of[item]] for item in items])
    above = np.column_stack([_sums(c, c.numerator, items, group, len(clusters)) for c in kept])
    below = np.column_stack([_sums(c, c.denominator, items, group, len(clusters)) for c in kept])
    values = above.sum(axis=0) / below.sum(axis=0)
    replicates = resample(above, below, resamples)
    if relative and transform == "identity":
        tiny = np.finfo(float).tiny
        values = np.log(np.maximum(values, tiny))
        replicates = np.log(np.maximum(replicates, tiny))
    return _Matrix(
        labels=tuple(column.label for column in kept),
        seeds=tuple(column.seed for column in kept),
        trains=tuple(column.trains for column in kept),
        values=values,
        replicates=replicates,
        clusters=len(clusters),
        items=len(items),
    )


def _sums(
    column: _Column, values: Floats, items: list[Any], group: np.ndarray, clusters: int
) -> Floats:
    if list(column.items) != items:
        place = {item: index for index, item in enumerate(column.items)}
        values = values[[place[item] for item in items]]
    return np.bincount(group, weights=values, minlength=clusters)


def _row_scores(
    rows: Sequence[Row],
    key: ScoreKey,
    matrix: _Matrix | None,
    relative: bool,  # noqa: FBT001
) -> dict[str, RowScore]:
    found = {}
    for row in rows:
        scores = [score for record in row.finished if (score := find_score(record, key))]
        if not scores:
            continue
        columns = matrix.of(row.label) if matrix is not None else []
        if matrix is None or not columns:
            value = float(np.mean([score.value for score in scores]))
            error = scores[0].standard_error
            found[row.label] = RowScore(
                row.label, round6(value), None, None, error, scores[0].n, len(scores)
            )
        else:
            found[row.label] = _row_score(row, matrix, columns, relative, scores[0].n)
    return found


def _row_score(
    row: Row,
    matrix: _Matrix,
    columns: list[int],
    relative: bool,
    n: int,  # noqa: FBT001
) -> RowScore:
    if not row.plan.trains:
        columns = columns[:1]
    own = effect(matrix.values[columns], matrix.replicates[:, columns], matrix.clusters)
    low, high = own.interval()
    shown = math.exp if relative else float
    value = shown(own.estimate)
    per_unit = value if relative else 1.0
    seed_sd = (
        None if own.seed_variance is None else math.sqrt(own.seed_variance * own.seeds) * per_unit
    )
    return RowScore(
        label=row.label,
        value=round6(value),
        low=round6(shown(low)),
        high=round6(shown(high)),
        standard_error=round6(own.standard_error * per_unit),
        n=n,
        seeds=own.seeds,
        seed_sd=None if seed_sd is None else round6(seed_sd),
        item_sd=round6(math.sqrt(own.item_variance) * per_unit),
    )


def paired_effect(matrix: _Matrix, label: str, reference: str, sign: int) -> Effect | None:
    """The difference of two rows on common seeds, counted so that positive is worse."""
    pairs = _pairs(matrix, label, reference)
    if not pairs:
        return None
    own, other = np.array(pairs).T
    values = sign * (matrix.values[own] - matrix.values[other])
    replicates = sign * (matrix.replicates[:, own] - matrix.replicates[:, other])
    return effect(values, replicates, matrix.clusters)


def _pairs(matrix: _Matrix, label: str, reference: str) -> list[tuple[int, int]]:
    own, other = matrix.of(label), matrix.of(reference)
    if not own or not other:
        return []
    trains = matrix.trains[own[0]], matrix.trains[other[0]]
    if not trains[0] and not trains[1]:
        return [(own[0], other[0])]
    if not trains[0]:
        return [(own[0], index) for index in other]
    if not trains[1]:
        return [(index, other[0]) for index in own]
    by_seed = {matrix.seeds[index]: index for index in other}
    return [(i, by_seed[matrix.seeds[i]]) for i in own if matrix.seeds[i] in by_seed]


def _differences(
    matrix: _Matrix,
    reference: str,
    direction: str,
    relative: bool,
    margin: float,  # noqa: FBT001
) -> dict[str, Difference]:
    sign = 1 if direction == "lower" else -1
    labels = [label for label in dict.fromkeys(matrix.labels) if label != reference]
    effects = {
        label: found
        for label in labels
        if (found := paired_effect(matrix, label, reference, sign)) is not None
    }
    adjusted = holm([found.p_value for found in effects.values()])
    bound = math.log1p(margin) if relative else margin
    return {
        label: _difference(label, found, p, (sign, relative, bound), matrix.items)
        for (label, found), p in zip(effects.items(), adjusted, strict=True)
    }


def _difference(
    label: str, found: Effect, adjusted_p: float, scale: tuple[int, bool, float], items: int
) -> Difference:
    sign, relative, bound = scale
    judged = verdict(found, adjusted_p, bound)
    shown = math.expm1 if relative else float
    ends = sorted(sign * end for end in found.interval())
    return Difference(
        label=label,
        estimate=round6(shown(sign * found.estimate)),
        low=round6(shown(ends[0])),
        high=round6(shown(ends[1])),
        p_value=round6(found.p_value),
        adjusted_p=round6(adjusted_p),
        verdict=judged,
        worse_by=found,
        not_worse=found.interval()[1] < bound,
        needed=needed(found, bound) if judged == "undecided" else None,
        items=items,
    )


def _best_chance(matrix: _Matrix, direction: str) -> dict[str, float]:
    """Share of replicates (items and, where known, seeds redrawn) in which a row is the best."""
    labels = list(dict.fromkeys(matrix.labels))
    draws = np.random.default_rng(1)
    sign = 1 if direction == "lower" else -1
    joint = np.column_stack([_with_seed_noise(matrix, label, draws) for label in labels]) * sign
    best = np.bincount(joint.argmin(axis=1), minlength=len(labels)) / len(joint)
    return {label: round6(float(share)) for label, share in zip(labels, best, strict=True)}


def _with_seed_noise(matrix: _Matrix, label: str, draws: np.random.Generator) -> Floats:
    columns = matrix.of(label)
    replicates = matrix.replicates[:, columns]
    mean: Floats = replicates.mean(axis=1)
    if len(columns) == 1 or not matrix.trains[columns[0]]:
        return mean
    error = matrix.values[columns].std(ddof=1) / math.sqrt(len(columns))
    noise: Floats = mean + error * draws.standard_t(len(columns) - 1, size=len(mean))
    return noise


def round6(value: float) -> float:
    """Six significant digits: what a report shows must not depend on the last bits of a sum."""
    return float(f"{value:.6g}")
