"""Sample: a score's scale, and the runs of a comparison on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from harness.records.record import Score
from harness.report.pairing import Aligned, sums
from harness.report.statistics.effects import Effect
from harness.report.statistics.noise import Floats, Noise, make_noise
from harness.report.statistics.shares import Discordant, with_design_effect

LARGEST_LOG = 700.0
SHARES = frozenset({"fraction", "share", "accuracy", "probability"})


@dataclass(frozen=True)
class Scale:
    """How a score is compared.

    Effects are estimated on an additive scale: the logarithm for relative scores (perplexity, bits
    per byte), the value itself for shares and signed scores. ``margin`` is in the terms shown;
    ``ceiling`` is the highest value that a score with a floor of 0 can have.
    """

    transform: str
    relative: bool
    direction: str
    unit: str
    margin: float
    share: bool = False
    ceiling: float | None = None

    @property
    def sign(self) -> int:
        """+1 when a higher value is worse."""
        return 1 if self.direction == "lower" else -1

    @property
    def bound(self) -> float:
        """The margin on the additive scale."""
        return math.log1p(self.margin) if self.relative else self.margin

    @property
    def logged(self) -> bool:
        """Whether a ratio of sums becomes additive by its logarithm."""
        return self.relative and self.transform == "identity"

    def additive(self, ratios: Floats) -> Floats:
        """Ratios of sums on the additive scale."""
        if self.logged:
            return np.log(np.maximum(ratios, np.finfo(float).tiny))
        return ratios

    def value(self, additive: float) -> float:
        """A value in its own unit."""
        return math.exp(additive) if self.relative else additive

    def difference(self, additive: float) -> float:
        """A relative change, or a difference in the score's unit."""
        # Two seeds at an early look of many can leave an interval of any width.
        return math.expm1(min(additive, LARGEST_LOG)) if self.relative else additive


@dataclass(frozen=True)
class Sample:
    """Aligned runs on the additive scale.

    ``values`` has shape (runs,); ``influence``, shape (clusters, runs), is what each cluster adds
    to a value beyond its share (the linear part of a ratio of sums), so that columns sum to zero.
    """

    aligned: Aligned
    values: Floats
    influence: Floats

    @cached_property
    def _columns(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for index, label in enumerate(self.aligned.labels):
            if self.aligned.trains[index] or label not in found:
                found.setdefault(label, []).append(index)
        return found

    @cached_property
    def _effective(self) -> float:
        """How many groups of equal size the groups are worth (Kish's effective sample size)."""
        weights = self.aligned.weights
        return float(weights.sum() ** 2 / (weights**2).sum())

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the rows."""
        return tuple(self._columns)

    def columns(self, label: str) -> list[int]:
        """Runs of a row; one is enough for a row that does not train, since its seeds are equal."""
        return self._columns.get(label, [])

    def seeds(self, label: str) -> tuple[int, ...]:
        """Seeds of a row's runs."""
        return tuple(self.aligned.seeds[column] for column in self.columns(label))

    def trains(self, label: str) -> bool:
        """Whether a row was trained, so that its seeds differ."""
        columns = self.columns(label)
        return bool(columns) and self.aligned.trains[columns[0]]

    def own(self, label: str) -> Effect:
        """A row's value."""
        columns = self.columns(label)
        return self._effect(self.values[columns], self.influence[:, columns])

    def own_share(self, label: str) -> tuple[float, Noise] | None:
        """How many independent items a row's share of right answers is worth, and its noise."""
        answers, columns = self.aligned.answers, self.columns(label)
        if answers is None:
            return None
        mean = answers[:, columns].mean(axis=1)
        share = float(mean.mean())
        count = self.aligned.items
        doubtful = (share * count + 1) / (count + 2)
        return self._worth(
            self.own(label).noise, mean - share, share * (1 - share), doubtful * (1 - doubtful)
        )

    def paired(self, label: str, reference: str) -> Effect | None:
        """A row minus the reference on common seeds; None without a common seed."""
        pairs = self._pairs(label, reference)
        if not pairs:
            return None
        own, other = (list(side) for side in zip(*pairs, strict=True))
        return self.between(own, other)

    def between(self, own: list[int], other: list[int]) -> Effect:
        """Some runs minus as many others, pair by pair."""
        found = self._effect(
            self.values[own] - self.values[other],
            self.influence[:, own] - self.influence[:, other],
        )
        return replace(
            found,
            single=len(own) == 1 and any(self.aligned.trains[run] for run in (*own, *other)),
            magnitude=float(np.abs(self.values[[*own, *other]]).max()),
            discordant=self._discordant(own, other, found.noise),
        )

    def _effect(self, values: Floats, influence: Floats) -> Effect:
        return Effect(
            estimate=float(values.mean()),
            noise=make_noise(values, influence, self.aligned.weights),
            seeds=len(values),
            clusters=self.aligned.clusters,
            effective=self._effective,
            magnitude=float(np.abs(values).max()),
        )

    def _discordant(self, own: list[int], other: list[int], noise: Noise) -> Discordant | None:
        answers = self.aligned.answers
        if answers is None:
            return None
        apart = answers[:, own] - answers[:, other]
        up, down = float((apart > 0).mean()), float((apart < 0).mean())
        mean = up - down
        n, grown = self._worth(noise, apart.mean(axis=1) - mean, up + down - mean**2, 1.0)
        return Discordant(up, down, n, grown)

    def _worth(
        self, noise: Noise, residual: Floats, spread: float, unit: float
    ) -> tuple[float, Noise]:
        clustered = sums(residual[:, None], self.aligned.group)[:, 0]
        return with_design_effect(noise, clustered, self.aligned.sizes, spread, unit)

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


def make_scale(scores: Sequence[Score], margin: float, anchor: Score | None = None) -> Scale:
    """How to compare these scores of one key.

    Perplexity and other positive scores where lower is better are compared by relative change;
    shares by difference, the margin being in shares (0.01 is one point); other scores by
    difference, the margin being a share of their median, or of ``anchor``, which stays what it is
    when more runs are added. Shares and points end at a ceiling.
    """
    first = scores[0]
    values = [score.value for score in scores]
    within_one = first.direction == "higher" and min(values) >= 0 and max(values) <= 1
    share = first.transform == "identity" and (first.unit in SHARES or within_one)
    relative = first.transform == "exp" or (
        not share and first.direction == "lower" and min(values) > 0
    )
    if not relative and not share:
        margin *= abs(float(np.median(values) if anchor is None else anchor.value)) or 1.0
    ceiling = 1.0 if share else None
    if first.unit == "points" and first.direction == "higher" and 0 <= min(values) <= 100:
        ceiling = 100.0
    return Scale(
        first.transform, relative, first.direction, first.unit, round6(margin), share, ceiling
    )


def make_sample(aligned: Aligned, scale: Scale) -> Sample:
    """Values and influences of aligned runs."""
    total = aligned.denominator.sum(axis=0)
    ratios = aligned.numerator.sum(axis=0) / total
    influence = (aligned.numerator - ratios * aligned.denominator) / total
    if scale.logged:
        influence = influence / np.maximum(ratios, np.finfo(float).tiny)
    # Comparisons take a few whole columns at a time.
    return Sample(aligned, scale.additive(ratios), np.asfortranarray(influence))


def round6(value: float) -> float:
    """Six significant digits: what a report shows must not depend on the last bits of a sum."""
    return float(f"{value:.6g}")
