"""Effects: a difference of two sides (or one side's value) with its interval and p-value."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from harness.report.statistics.noise import Noise
from harness.report.statistics.shares import Discordant

FEWEST_CLUSTERS = 8
FEWEST_EFFECTIVE = 5.0
ROUNDING = 1e-9

Obstacle = Literal["", "one training", "few items", "identical", "no noise"]


@dataclass(frozen=True)
class Effect:
    """A difference on the additive scale: what it is, how far it may be off, what it is about.

    ``clusters`` counts groups of items; ``effective`` is how many of equal size they are worth.
    ``magnitude`` is the size of the values themselves, against which rounding errors are judged.
    ``single`` says that a trained side has one seed, so that the difference is about these
    trainings, not about the variants. ``discordant`` is there for shares of right answers.
    """

    estimate: float
    noise: Noise
    seeds: int = 1
    clusters: int = FEWEST_CLUSTERS
    effective: float = float(FEWEST_CLUSTERS)
    magnitude: float = 0.0
    single: bool = False
    discordant: Discordant | None = None

    @property
    def obstacle(self) -> Obstacle:
        """Why no verdict about the variants can be given; empty where one can."""
        if self.clusters < FEWEST_CLUSTERS or self.effective < FEWEST_EFFECTIVE:
            return "few items"
        if self.single:
            return "one training"
        if self.discordant is None and self._is_flat:
            return "identical" if abs(self.estimate) <= self._rounding else "no noise"
        return ""

    @property
    def _rounding(self) -> float:
        return ROUNDING * max(self.magnitude, abs(self.estimate))

    @property
    def _is_flat(self) -> bool:
        """Whether the items do not vary beyond the rounding errors of their sums."""
        return math.sqrt(self.noise.variance) <= self._rounding

    @property
    def variance(self) -> float:
        """Variance of the estimate."""
        return self.noise.variance

    @property
    def standard_error(self) -> float:
        """Square root of the variance."""
        return math.sqrt(self.noise.variance)

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """Two-sided interval that misses the truth with probability ``alpha``."""
        if self.discordant is not None:
            return self.discordant.interval(alpha)
        return self.noise.interval(self.estimate, alpha)

    @property
    def p_value(self) -> float:
        """Two-sided p-value of no difference."""
        if self.discordant is not None:
            return self.discordant.p_value()
        return 1.0 if self._is_flat else self.noise.p_value(abs(self.estimate))

    def equivalence_p(self, margin: float) -> float:
        """P-value of a difference of ``margin`` or more, in either direction.

        The smallest ``alpha`` at which the interval lies within the margin: where the truth lies
        at the margin it is below ``alpha`` in at most half of ``alpha`` (two one-sided tests).
        """
        within = margin - abs(self.estimate)
        if within <= 0:
            return 1.0
        if self.discordant is not None:
            return self.discordant.equivalence_p(margin)
        return self.noise.p_value(within)

    def negated(self) -> Effect:
        """The same effect counted the other way round."""
        other = None if self.discordant is None else self.discordant.reversed()
        return replace(self, estimate=-self.estimate, discordant=other)

    def with_noise(self, noise: Noise) -> Effect:
        """The same effect with seed noise learnt from its group."""
        found = self.discordant
        if found is not None:
            kept = replace(found.noise, seeds=noise.seeds, seed_freedom=noise.seed_freedom)
            found = replace(found, noise=kept)
        return replace(self, noise=noise, discordant=found)
