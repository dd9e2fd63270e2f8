"""Intervals: differences from the reference, the margin shaded around zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.report.figures.canvas import (
    FAINT,
    INK,
    SHADE,
    Axis,
    Mark,
    area,
    colour,
    dot,
    name_axes,
    name_rows,
    names_in,
    room,
    tag,
)


@dataclass(frozen=True)
class Interval:
    """One difference from the reference with its interval, where there is one."""

    label: str
    mark: Mark
    estimate: float
    low: float | None
    high: float | None
    verdict: str
    said: str = ""


@dataclass(frozen=True)
class Intervals:
    """Differences from the reference, zero in the middle, the margin shaded."""

    x: Axis
    rows: tuple[Interval, ...]
    margin: float

    def paint(self, figure: Any) -> None:
        """One line per variant: name, interval, verdict; the margin is shaded around zero."""
        rows = self.rows
        names = names_in(figure, [row.label for row in rows])
        axes = area(figure, 0.26 * len(rows) + 0.95, (room(names), 1.0, 0.55, 0.2))
        axes.axvspan(-self.margin, self.margin, color=SHADE, lw=0, zorder=0)
        axes.axvline(0, color=INK, lw=0.9, zorder=1)
        for place, row in enumerate(rows):
            if row.low is not None and row.high is not None:
                ends = [row.low, row.high]
                (bar,) = axes.plot(ends, [place] * 2, color=colour(row.mark), lw=2, zorder=3)
                tag(bar, row.label, row.said or row.label)
            dot(axes, (row.estimate, place), row.mark, (row.label, row.said or row.label))
            axes.annotate(
                row.verdict,
                xy=(1.02, place),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=8.5,
                color=FAINT if row.verdict == "undecided" else INK,
            )
        name_rows(axes, [names[row.label] for row in rows])
        name_axes(axes, self.x, None)
