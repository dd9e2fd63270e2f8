"""Histogram: counts by upper bound."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from harness.report.figures.canvas import INK, PALETTE, Axis, area, name_axes


@dataclass(frozen=True)
class Histogram:
    """Counts by upper bound; ``cuts`` are bounds worth a line, with their labels."""

    x: Axis
    y: Axis
    bounds: tuple[int, ...]
    counts: tuple[int, ...]
    cuts: tuple[tuple[int, str], ...] = ()

    def paint(self, figure: Any) -> None:
        """Bars with their counts on top, one per length class."""
        axes = area(figure, 3.0, (0.75, 0.2, 0.55, 0.3))
        places = range(len(self.bounds))
        axes.bar(places, self.counts, color=PALETTE[0], width=0.86)
        for place, count in zip(places, self.counts, strict=True):
            axes.annotate(
                str(count),
                xy=(place, count),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=8 if len(self.bounds) <= 20 else 6,
            )
        every = max(1, math.ceil(len(self.bounds) / 16))
        ticks = [place for place in places if place % every == 0]
        axes.set_xticks(ticks, [f"≤ {self.bounds[place]:,}" for place in ticks], fontsize=8)
        axes.grid(visible=False, axis="x")
        for bound, label in self.cuts:
            edge = sum(1 for upper in self.bounds if upper <= bound) - 0.5
            axes.axvline(edge, color=INK, lw=1.0, ls=(0, (4, 2)))
            axes.annotate(
                label,
                xy=(edge, 1),
                xycoords=("data", "axes fraction"),
                xytext=(3, 2),
                textcoords="offset points",
                va="bottom",
                fontsize=8,
            )
        name_axes(axes, self.x, self.y)
