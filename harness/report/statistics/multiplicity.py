"""Multiplicity: p-values corrected for how many comparisons are read together."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the chance of any false call down, in the given order.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the share of false calls among all calls down.

    Source: Benjamini and Hochberg, "Controlling the false discovery rate" (1995).
    """
    order = sorted(range(len(p_values)), key=lambda index: -p_values[index])
    adjusted = [0.0] * len(p_values)
    lowest = 1.0
    for rank, index in enumerate(order):
        place = len(p_values) - rank
        lowest = min(lowest, len(p_values) / place * p_values[index])
        adjusted[index] = lowest
    return adjusted
