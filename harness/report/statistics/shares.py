"""Shares: intervals and p-values for answers that are right or wrong, clustered and repeated."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from harness.report.statistics.noise import Floats, Noise, small_sample

STEPS = 60


@dataclass(frozen=True)
class Discordant:
    """Items on which two sides disagree, as shares of all items (mean over seeds).

    ``up`` is the share that only the first side answers rightly, ``down`` the share that only
    the second does. ``n`` is how many independent items the data are worth, and ``noise`` the
    variance components at that number.
    """

    up: float
    down: float
    n: float
    noise: Noise

    @property
    def estimate(self) -> float:
        """First side minus second."""
        return self.up - self.down

    def critical(self, alpha: float) -> float:
        """How many standard errors of the items leave ``alpha`` in both tails."""
        return self.noise.half_width(alpha) / math.sqrt(self.noise.items)

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """Tango's score interval for the difference of two paired shares.

        Source: Tango, "Equivalence test and confidence interval for the difference in
        proportions for the paired-sample design" (1998), with ``n`` for the number of items.
        """
        critical = self.critical(alpha)
        up, down = self.up * self.n, self.down * self.n

        def beyond(delta: float) -> bool:
            return abs(tango_score(up, down, self.n, delta)) > critical

        return _edge(beyond, self.estimate, -1.0), _edge(beyond, self.estimate, 1.0)

    def p_value(self) -> float:
        """McNemar's mid-p value, or that of the score test where seeds or few clusters matter.

        Source: Fagerland, Lydersen and Laake, "The McNemar test for binary matched-pairs data:
        mid-p and asymptotic are better than exact conditional" (2013).
        """
        up, down = self.up * self.n, self.down * self.n
        if up + down <= 0:
            return 1.0
        score = abs(up - down) / math.sqrt(up + down)
        return max(mcnemar_mid_p(up, down), self.noise.p_value(score * math.sqrt(self.noise.items)))

    def equivalence_p(self, margin: float) -> float:
        """The ``alpha`` at which Tango's interval reaches the margin, as a p-value."""
        up, down = self.up * self.n, self.down * self.n
        score = min(abs(tango_score(up, down, self.n, end)) for end in (-margin, margin))
        return self.noise.p_value(score * math.sqrt(self.noise.items))

    def reversed(self) -> Discordant:
        """Second side minus first."""
        return replace(self, up=self.down, down=self.up)


def _edge(beyond: Callable[[float], bool], inside: float, outside: float) -> float:
    """Where ``beyond`` changes between two differences, by bisection."""
    if not beyond(outside):
        return outside
    for _ in range(STEPS):
        middle = (inside + outside) / 2
        if beyond(middle):
            outside = middle
        else:
            inside = middle
    return (inside + outside) / 2


def tango_score(up: float, down: float, n: float, delta: float) -> float:
    """Score statistic of ``difference = delta``.

    Args:
        up: number of items that only the first side answers rightly; need not be whole.
        down: number that only the second side does.
        n: number of items.
        delta: the supposed difference of the two shares.
    """
    linear = -up - down + (2 * n - up + down) * delta
    constant = -down * delta * (1 - delta)
    share = (math.sqrt(max(linear**2 - 8 * n * constant, 0.0)) - linear) / (4 * n)
    variance = n * (2 * share + delta * (1 - delta))
    distance = up - down - n * delta
    if variance <= 0:
        return 0.0 if abs(distance) < 1e-12 * n else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def mcnemar_mid_p(up: float, down: float) -> float:
    """Two-sided mid-p value of ``up`` against ``down`` under a fair coin; need not be whole."""
    from scipy.special import betainc, gammaln

    n, low = up + down, min(up, down)
    below = float(betainc(n - low, low + 1, 0.5)) if low < n else 1.0
    exactly = gammaln(n + 1) - gammaln(low + 1) - gammaln(n - low + 1) - n * math.log(2)
    return min(1.0, 2 * below - math.exp(float(exactly)))


def wilson(share: float, n: float, critical: float) -> tuple[float, float]:
    """Wilson's score interval of one share.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    square = critical**2
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = critical * math.sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def with_design_effect(
    noise: Noise, sums: Floats, sizes: Floats, spread: float, unit: float
) -> tuple[float, Noise]:
    """How many independent items clustered ones are worth, and the noise at that number.

    The design effect is the variance of cluster sums over that of as many independent items
    (Kish, "Survey sampling", 1965; Cameron and Miller, "A practitioner's guide to cluster-robust
    inference", 2015). Half an item with the largest possible design effect is counted in: where
    hardly any items disagree their clustering cannot be seen, and is then taken as complete.

    Args:
        noise: components as estimated.
        sums: residual sum of each cluster, mean over seeds, shape (clusters,).
        sizes: items in each cluster, shape (clusters,).
        spread: variance of one item.
        unit: variance of the item counted in.
    """
    items = float(sizes.sum())
    mean_size = float((sizes**2).sum()) / items
    correction, _ = small_sample(sizes)
    squares = correction * float(sums @ sums) + mean_size * unit / 2
    effect = squares / (items * spread + unit / 2)
    return items / effect, replace(noise, items=max(squares / items**2, np.finfo(float).tiny))
