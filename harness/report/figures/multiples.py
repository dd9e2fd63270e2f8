"""Multiples: a small panel for each curve, the reference's drawn faintly in all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.report.figures.canvas import (
    FAINT,
    INK,
    MARKERS,
    NARROW,
    PAPER,
    Axis,
    Mark,
    colour,
    names_in,
    tag,
    width_of,
)
from harness.report.figures.key import LINE, draw_key, key_lines
from harness.report.figures.lines import Line

PANEL = 1.25
EDGE = 0.08  # inches above the key
SIZE = 5.5  # points of the key's markers
LONGEST_TITLE = 25  # letters over a panel in the usual size


@dataclass(frozen=True)
class Multiples:
    """A panel per curve on common axes; ``reference`` is the label of the one drawn in all.

    ``marked`` draws a marker at each point; what lies above ``highest`` is cut off. ``notes`` stand
    in the panels' upper right corners, one for each curve. ``key`` says above the panels what the
    colours and markers stand for.
    """

    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    reference: str | None = None
    marked: bool = False
    highest: float | None = None
    notes: tuple[str, ...] = ()
    key: tuple[tuple[Mark, str], ...] = ()

    def paint(self, figure: Any) -> None:
        """Panels in rows, the reference's curve faint behind each."""
        names = names_in(figure, [line.label for line in self.lines])
        size = 8.5 * min(1.0, LONGEST_TITLE / max([1, *map(len, names.values())]))
        width = width_of(figure)
        columns = min(4 if width > NARROW else 2, max(len(self.lines), 1))
        rows = -(-len(self.lines) // columns)
        lines = len(key_lines([name for _, name in self.key], width - EDGE)) if self.key else 0
        above = LINE * lines + EDGE if lines else 0.0
        height = rows * (PANEL + 0.3) + 0.55 + above
        figure.set_size_inches(width, height)
        each = (width - 0.75) / columns
        behind = next((line for line in self.lines if line.label == self.reference), None)
        first = None
        for place, line in enumerate(self.lines):
            across, down = place % columns, place // columns
            y = height - above - (down + 1) * (PANEL + 0.3)
            box = ((0.65 + across * each) / width, y / height, (each - 0.12) / width)
            axes = figure.add_axes((*box, PANEL / height), sharex=first, sharey=first)
            first = first or axes
            axes.set_title(names[line.label], fontsize=size, loc="left", color=INK, pad=3)
            if behind is not None and behind is not line:
                axes.plot(behind.x, behind.y, color=FAINT, lw=1.0, zorder=1)
            _curve(axes, line, MARKERS[line.mark.marker] if self.marked else "")
            if self.notes:
                _note(axes, self.notes[place])
            if self.highest is not None:
                axes.set_ylim(_lowest(self.lines), self.highest)
            below = place + columns >= len(self.lines)
            axes.tick_params(labelleft=across == 0, labelbottom=below)
        figure.text(0.65 / width, 0.08 / height, self.x.title, fontsize=9)
        figure.text(0.08 / width, 0.5, self.y.title, fontsize=9, rotation=90, va="center")
        if self.key:
            draw_key(figure, self.key, EDGE, SIZE)


def _lowest(lines: tuple[Line, ...]) -> float:
    """A little below the lowest point of all curves."""
    lowest = min(min(line.y) for line in lines)
    return lowest - 0.02 * abs(lowest)


def _note(axes: Any, text: str) -> None:
    upper = {"transform": axes.transAxes, "ha": "right", "va": "top"}
    under = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.0}  # a curve may pass there
    axes.text(0.99, 0.97, text, fontsize=8.5, bbox=under, zorder=5, **upper)


def _curve(axes: Any, line: Line, marker: str) -> None:
    (curve,) = axes.plot(line.x, line.y, color=colour(line.mark), marker=marker, ms=4, zorder=3)
    said = f"{line.label}: {line.y[0]:.4g} at {line.x[0]:g}, {line.y[-1]:.4g} at {line.x[-1]:g}"
    tag(curve, line.label, said)
    if line.low:
        shade = colour(line.mark)
        band = axes.fill_between(line.x, line.low, line.high, color=shade, alpha=0.18, lw=0)
        tag(band, line.label, said)
