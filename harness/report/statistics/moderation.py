"""Moderation: seed variances that are small by chance are raised towards those of their group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harness.report.statistics.noise import FEWEST_FREEDOM, Floats, Noise

NEWTON_STEPS = 30


def moderate(noises: Sequence[Noise], seeds: Sequence[int], *, correlated: bool) -> list[Noise]:
    """Raise seed variances of comparisons with one reference that are small by chance.

    Three seeds estimate a variance badly; among several comparisons one is small by chance and
    would look like a sure difference. Empirical Bayes takes the variances of a group as draws
    from a scaled inverse chi-square distribution, whose scale ``s0^2`` and weight ``d0`` it reads
    off the group, and gives each ``(d0 s0^2 + d s^2) / (d0 + d)`` with ``d0 + d`` degrees of
    freedom. Source: Smyth, "Linear models and empirical Bayes methods for assessing differential
    expression" (2004). Here it only raises: a variance above its moderated value stays as it was
    measured with its own degrees of freedom, so that a variant that is truly noisier than the
    others keeps its noise. With two seeds nothing is moderated.

    Args:
        noises: one for each comparison; those without seed noise pass through.
        seeds: seeds of each comparison.
        correlated: whether the reference was trained, too. Differences that share its noise are
            correlated by one half, and ``k`` of them are worth ``4 d k / (k + 3)`` degrees of
            freedom, not ``d k``.
    """
    members = [
        place
        for place, noise in enumerate(noises)
        if noise.seeds is not None and noise.seed_freedom >= FEWEST_FREEDOM
    ]
    if len(members) < 2:
        return list(noises)
    own = np.array([(noises[place].seeds or 0.0) * seeds[place] for place in members])
    freedom = np.array([noises[place].seed_freedom for place in members])
    if not (own > 0).any():
        return list(noises)
    prior, weight = _prior(np.maximum(own, 1e-5 * np.median(own[own > 0])), freedom)
    count = len(members)
    worth = 4 * count / (count + 3) if correlated else count
    weights = np.minimum(weight, np.maximum(worth * freedom.mean() - freedom, 0.0))
    moderated = (weights * prior + freedom * own) / (weights + freedom)
    found = list(noises)
    for index, place in enumerate(members):
        if moderated[index] > own[index]:
            found[place] = replace(
                noises[place],
                seeds=float(moderated[index]) / seeds[place],
                seed_freedom=float(weights[index] + freedom[index]),
            )
    return found


def _prior(variances: Floats, freedom: Floats) -> tuple[float, float]:
    """Scale ``s0^2`` and weight ``d0`` of the prior, by the moments of the log variances."""
    from scipy.special import digamma, polygamma

    logs = np.log(variances) - digamma(freedom / 2) + np.log(freedom / 2)
    beyond = float(logs.var(ddof=1) - polygamma(1, freedom / 2).mean())
    if beyond <= 0:
        return float(np.exp(logs.mean())), float("inf")
    half = 0.5 + 1 / beyond
    for _ in range(NEWTON_STEPS):
        now = float(polygamma(1, half))
        half += now * (1 - now / beyond) / float(polygamma(2, half))
    return float(np.exp(logs.mean() + digamma(half) - np.log(half))), 2 * half
