"""Lines: curves over a common axis, named at their right end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.report.figures.canvas import (
    GRID,
    LINE_HEIGHT,
    MARKERS,
    PAPER,
    Axis,
    Mark,
    Spot,
    area,
    colour,
    name_at_right,
    name_axes,
    names_in,
    room,
    tag,
)

MOST_BANDS = 8


@dataclass(frozen=True)
class Line:
    """A curve; ``low`` to ``high`` is a band, or error bars where points are marked."""

    label: str
    mark: Mark
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Curves:
    """Curves over a common x axis, named at their right end; ``faint`` ones stay unnamed."""

    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    faint: tuple[Line, ...] = ()
    marked: bool = False
    doubling: bool = False

    def paint(self, figure: Any) -> None:
        """Curves named at their right end."""
        names = names_in(figure, [line.label for line in self.lines])
        height = max(3.6, LINE_HEIGHT * len(names) + 1.0)
        axes = area(figure, height, (0.75, room(names), 0.55, 0.2))
        for line in self.faint:
            axes.plot(line.x, line.y, color=GRID, lw=0.9, zorder=1)
        for line in self.lines:
            _curve(axes, line, marked=self.marked, banded=len(self.lines) <= MOST_BANDS)
        if self.doubling:
            ticks = sorted({x for line in self.lines for x in line.x})
            axes.set_xscale("log", base=2)
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        else:
            _whole_steps(axes)
        axes.margins(x=0.02 if not self.marked else 0.06)
        name_axes(axes, self.x, self.y)
        ends = [
            Spot(line.label, names[line.label], line.mark, (line.x[-1], line.y[-1]), _said(line))
            for line in self.lines
        ]
        name_at_right(axes, ends, height - 0.75)


def _said(line: Line) -> str:
    """Where a curve begins and ends, in words."""
    start, end = (f"{line.y[at]:.4g} at {line.x[at]:g}" for at in (0, -1))
    return f"{line.label}: {start}, {end}"


def _whole_steps(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _curve(axes: Any, line: Line, *, marked: bool, banded: bool) -> None:
    shade = colour(line.mark)
    dashes: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
    style = dashes[line.mark.marker % len(dashes)]
    marker = MARKERS[line.mark.marker] if marked else ""
    (curve,) = axes.plot(
        line.x, line.y, color=shade, ls=style, marker=marker, ms=6, mec=PAPER, zorder=3
    )
    tag(curve, line.label, _said(line))
    if not line.low:
        return
    if marked:
        for x, low, high in zip(line.x, line.low, line.high, strict=True):
            axes.plot([x, x], [low, high], color=shade, lw=1.1, alpha=0.6)
    elif banded:
        axes.fill_between(line.x, line.low, line.high, color=shade, alpha=0.15, lw=0)
