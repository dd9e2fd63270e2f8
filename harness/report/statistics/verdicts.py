"""Verdicts: what a comparison allows to be said."""

from __future__ import annotations

from typing import Literal

from harness.report.statistics.effects import Effect

Verdict = Literal["better", "worse", "equivalent", "undecided", "differs"]


def verdict(
    worse_by: Effect,
    adjusted_p: float,
    equal_p: float,
    *,
    alpha: float = 0.05,
    exact_loss: bool = False,
) -> Verdict:
    """Judge a difference counted so that positive is worse.

    Args:
        worse_by: the difference.
        adjusted_p: its p-value, corrected for the number of comparisons.
        equal_p: that of a difference of the margin or more, corrected alike
            (:meth:`harness.report.statistics.effects.Effect.equivalence_p`).
        alpha: error allowed to this comparison; a study that looks several times spends less.
        exact_loss: whether the score is a loss, of which equal values on every item mean equal
            models; equal answers do not.

    Returns:
        "equivalent" when ``equal_p`` is below ``alpha`` (two one-sided tests of ``alpha / 2``:
        Schuirmann, 1987); "better" or "worse" when ``adjusted_p`` is; "differs" when that is so
        with one training of a variant, which says nothing about another one; "undecided"
        otherwise, and always on fewer than 8 groups of items.
    """
    obstacle = worse_by.obstacle
    if obstacle == "one training":
        return "differs" if adjusted_p < alpha else "undecided"
    if obstacle == "identical" and exact_loss:
        return "equivalent"
    if obstacle:
        return "undecided"
    if equal_p < alpha:
        return "equivalent"
    if adjusted_p < alpha:
        return "worse" if worse_by.estimate > 0 else "better"
    return "undecided"
