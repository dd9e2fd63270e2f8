"""Bound: the power that any rule can have which also holds for variants of larger seed noise.

``python -m tests.stats.bound`` prints, for three and five seeds, how often each rule covers a
variant whose difference has one to 3.6 times the group's standard deviation (seed noise of one to
five times the reference's), and how often it finds a difference of three standard errors of a
variant like the others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.report.statistics.moderation import CLEARLY_LARGER

Floats = NDArray[np.float64]
Rule = Callable[[Floats, Floats], Floats]

RATIOS = (1.0, 1.58, 2.24, 3.6)  # sqrt((f^2 + 1) / 2) for f of 1, 2, 3, 5
DIFFERENCE = 3.0
GROUP = 6
ALPHA = 0.05


def rules(freedom: int) -> dict[str, Rule]:
    """Half-widths of an interval, from a variant's own standard error and the group's."""
    own = float(stats.t.ppf(1 - ALPHA / 2, freedom))
    pooled = float(stats.t.ppf(1 - ALPHA / 2, _worth(freedom)))

    def threshold(factor: float) -> Rule:
        return lambda s, group: np.where(s**2 > factor * group**2, own * s, pooled * group)

    return {
        "its own": threshold(0.0),
        "pooled": threshold(np.inf),
        "raised only": threshold(1.0),
        "moderated": threshold(CLEARLY_LARGER),
    }


def _worth(freedom: int) -> float:
    """Degrees of freedom of a group whose members share the reference's noise."""
    return 4 * freedom * GROUP / (GROUP + 3)


def errors_and_power(rule: Rule, freedom: int, tries: int, seed: int) -> tuple[list[float], float]:
    """How often a rule errs at each ratio, and its power at the first."""
    draws = np.random.default_rng(seed)

    def called(ratio: float, difference: float) -> float:
        estimate = difference + ratio * draws.standard_normal(tries)
        own = ratio * np.sqrt(draws.chisquare(freedom, tries) / freedom)
        group = np.sqrt(draws.chisquare(_worth(freedom), tries) / _worth(freedom))
        return float((np.abs(estimate) > rule(own, group)).mean())

    return [called(ratio, 0.0) for ratio in RATIOS], called(1.0, DIFFERENCE)


def most_power(freedom: int, allowed: Sequence[float], rounds: int = 800) -> float:
    """Power of the best rule that errs no more often than ``allowed`` at each ratio.

    The group's variance is taken as known, which no real rule has. By the lemma of Neyman and
    Pearson the best rule calls a difference where its density exceeds a weighted sum of those
    without one; the weights are found by raising those of the ratios that err too often.
    """
    z, s = np.meshgrid(np.linspace(-20, 20, 401), np.geomspace(5e-3, 15, 150))
    cell = (z[0, 1] - z[0, 0]) * np.log(s[1, 0] / s[0, 0])

    def density(ratio: float, difference: float) -> Floats:
        of_z = (stats.norm.pdf(z, difference, ratio) + stats.norm.pdf(z, -difference, ratio)) / 2
        square = freedom * s**2 / ratio**2
        return np.asarray(of_z * stats.chi2.pdf(square, freedom) * 2 * square * cell)

    without = np.stack([density(ratio, 0.0) for ratio in RATIOS])
    with_one = density(1.0, DIFFERENCE)
    weights = np.array([5.0, 1.0, 1.0, 1.0])
    for step in range(rounds):
        called = with_one > np.tensordot(weights, without, 1)
        excess = without[:, called].sum(axis=1) - np.asarray(allowed)
        weights = np.maximum(weights * np.exp(4 * excess / (1 + step / 100)), 1e-6)
    return float(with_one[called].sum())


def main() -> int:
    """Print the table."""
    for freedom in (2, 4):
        print(f"{freedom + 1} seeds{'':12s}coverage% at {RATIOS}      power%")
        for name, rule in rules(freedom).items():
            errors, power = errors_and_power(rule, freedom, 400_000, seed=3)
            covered = "  ".join(f"{100 * (1 - error):5.1f}" for error in errors)
            print(f"{name:18s} {covered}  {100 * power:20.1f}")
        for allowed in (0.05, 0.07):
            power = most_power(freedom, [0.05, *[allowed] * 3])
            print(f"best of all with errors up to {100 * allowed:.0f} %{'':14s} {100 * power:5.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
