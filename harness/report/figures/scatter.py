"""Scatter: quality against a cost, with the Pareto front."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.report.figures.canvas import (
    FAINT,
    INK,
    LINE_HEIGHT,
    Axis,
    Mark,
    Spot,
    area,
    colour,
    dot,
    name_at_right,
    name_axes,
    names_in,
    room,
    tag,
)

MOST_NAMES = 40


@dataclass(frozen=True)
class Point:
    """A variant in the plane; ``low`` to ``high`` is an interval of y, ``said`` what it tells."""

    label: str
    mark: Mark
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    on_front: bool = False
    recommended: bool = False
    said: str = ""


@dataclass(frozen=True)
class Scatter:
    """Quality against a cost; points of the Pareto front are joined; ``limit`` is the user's."""

    x: Axis
    y: Axis
    points: tuple[Point, ...]
    limit: float | None = None
    limit_label: str = ""

    def paint(self, figure: Any) -> None:
        """Points with intervals; names in a column at the right, each joined to its point."""
        points = self.points
        named = _worth_naming(self)
        names = names_in(figure, [point.label for point in named])
        height = max(4.2, LINE_HEIGHT * len(named) + 1.0)
        axes = area(figure, height, (0.75, room(names), 0.55, 0.28))
        for point in points:
            shade = colour(point.mark)
            said = (point.label, point.said or point.label)
            if point.low is not None and point.high is not None:
                ends = [point.low, point.high]
                (bar,) = axes.plot([point.x] * 2, ends, color=shade, lw=1.2, alpha=0.6)
                tag(bar, *said)
            dot(axes, (point.x, point.y), point.mark, said)
            if point.recommended:
                ring = {"marker": "o", "ms": 14, "mfc": "none", "mec": INK, "mew": 1.3}
                axes.plot([point.x], [point.y], ls="", zorder=5, **ring)
        front = sorted((point.x, point.y) for point in points if point.on_front)
        if len(front) > 1:
            axes.plot(*zip(*front, strict=True), color=FAINT, lw=1.0, ls=(0, (4, 2)), zorder=2)
        axes.margins(x=0.08, y=0.08)
        _limit(axes, self)
        name_axes(axes, self.x, self.y)
        spots = [
            Spot(
                point.label,
                ("◉ " if point.recommended else "") + names[point.label],
                point.mark,
                (point.x, point.y),
                point.said or point.label,
            )
            for point in named
        ]
        name_at_right(axes, spots, height - 0.83)


def _worth_naming(drawing: Scatter) -> list[Point]:
    """All points, or those of the front and the best others where there are very many."""
    front = [point for point in drawing.points if point.on_front]
    others = [point for point in drawing.points if not point.on_front]
    return [*front, *others][:MOST_NAMES]


def _limit(axes: Any, drawing: Scatter) -> None:
    """The user's limit, where it is anywhere near the points."""
    low, high = axes.get_xlim()
    if drawing.limit is None or not low - (high - low) < drawing.limit < high + (high - low):
        return
    axes.axvline(drawing.limit, color=INK, lw=1.0)
    room = 0.03 * (high - low)
    axes.set_xlim(min(low, drawing.limit - room), max(high, drawing.limit + room))
    axes.annotate(
        drawing.limit_label,
        xy=(drawing.limit, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=8,
    )
