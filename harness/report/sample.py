"""Sample: a score's scale, and the runs of a comparison resampled on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.records.record import Score
from harness.report.items import Aligned
from harness.report.statistics import Effect, Floats, effect, resample

SHARES = frozenset({"fraction", "share", "accuracy", "probability"})


@dataclass(frozen=True)
class Scale:
    """How a score is compared.

    Effects are estimated on an additive scale: the logarithm for relative scores (perplexity, bits
    per byte), the value itself for shares and signed scores. ``margin`` is in the terms shown.
    """

    transform: str
    relative: bool
    direction: str
    unit: str
    margin: float
    share: bool = False

    @property
    def sign(self) -> int:
        """+1 when a higher value is worse."""
        return 1 if self.direction == "lower" else -1

    @property
    def bound(self) -> float:
        """The margin on the additive scale."""
        return math.log1p(self.margin) if self.relative else self.margin

    def additive(self, ratios: Floats) -> Floats:
        """Ratios of sums on the additive scale."""
        if self.relative and self.transform == "identity":
            return np.log(np.maximum(ratios, np.finfo(float).tiny))
        return ratios

    def value(self, additive: float) -> float:
        """A value in its own unit."""
        return math.exp(additive) if self.relative else additive

    def difference(self, additive: float) -> float:
        """A relative change, or a difference in the score's unit."""
        return math.expm1(additive) if self.relative else additive


@dataclass(frozen=True)
class Sample:
    """Aligned runs on the additive scale: values per run, and replicates (resamples, runs)."""

    aligned: Aligned
    values: Floats
    replicates: Floats

    @cached_property
    def _columns(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for index, label in enumerate(self.aligned.labels):
            if self.aligned.trains[index] or label not in found:
                found.setdefault(label, []).append(index)
        return found

    def columns(self, label: str) -> list[int]:
        """Runs of a row; one is enough for a row that does not train, since its seeds are equal."""
        return self._columns.get(label, [])

    def trains(self, label: str) -> bool:
        """Whether a row was trained, so that its seeds differ."""
        columns = self.columns(label)
        return bool(columns) and self.aligned.trains[columns[0]]

    def own(self, label: str) -> Effect:
        """A row's value."""
        columns = self.columns(label)
        return effect(self.values[columns], self.replicates[:, columns], self.aligned.weights)

    def paired(self, label: str, reference: str) -> Effect | None:
        """A row minus the reference on common seeds; None without a common seed."""
        pairs = self._pairs(label, reference)
        if not pairs:
            return None
        own, other = (list(side) for side in zip(*pairs, strict=True))
        values = self.values[own] - self.values[other]
        replicates = self.replicates[:, own] - self.replicates[:, other]
        return effect(values, replicates, self.aligned.weights)

    def _pairs(self, label: str, reference: str) -> list[tuple[int, int]]:
        own, other = self.columns(label), self.columns(reference)
        if not own or not other:
            return []
        if not self.aligned.trains[own[0]]:
            return [(own[0], index) for index in other]
        if not self.aligned.trains[other[0]]:
            return [(index, other[0]) for index in own]
        seeds = self.aligned.seeds
        by_seed = {seeds[index]: index for index in other}
        return [(index, by_seed[seeds[index]]) for index in own if seeds[index] in by_seed]


def make_scale(scores: Sequence[Score], margin: float) -> Scale:
    """How to compare these scores of one key.

    Perplexity and other positive scores where lower is better are compared by relative change;
    shares by difference, the margin being in shares (0.01 is one point); other scores by
    difference, the margin being a share of their median.
    """
    first = scores[0]
    values = [score.value for score in scores]
    within_one = first.direction == "higher" and min(values) >= 0 and max(values) <= 1
    share = first.transform == "identity" and (first.unit in SHARES or within_one)
    relative = first.transform == "exp" or (
        not share and first.direction == "lower" and min(values) > 0
    )
    if not relative and not share:
        margin *= abs(float(np.median(values))) or 1.0
    return Scale(first.transform, relative, first.direction, first.unit, round6(margin), share)


def make_sample(aligned: Aligned, scale: Scale, resamples: int) -> Sample:
    """Resample the clusters of aligned runs."""
    ratios = aligned.numerator.sum(axis=0) / aligned.denominator.sum(axis=0)
    replicates = resample(aligned.numerator, aligned.denominator, resamples)
    # Comparisons take a few whole columns at a time.
    by_column = np.asfortranarray(scale.additive(replicates))
    return Sample(aligned, scale.additive(ratios), by_column)


def round6(value: float) -> float:
    """Six significant digits: what a report shows must not depend on the last bits of a sum."""
    return float(f"{value:.6g}")
