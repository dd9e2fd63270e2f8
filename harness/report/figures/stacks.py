"""Stacks: horizontal bars whose parts add up to a total."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.figures.bars import Bar
from harness.report.figures.canvas import (
    PARTS,
    Axis,
    area,
    name_axes,
    name_rows,
    names_in,
    room,
    tag,
    width_of,
)
from harness.report.figures.key import key_lines, key_width


@dataclass(frozen=True)
class Stacks:
    """Horizontal stacked bars that add up to a total written at their end."""

    x: Axis
    parts: tuple[str, ...]
    bars: tuple[Bar, ...]

    def paint(self, figure: Any) -> None:
        """Stacked horizontal bars with the total at the end and the parts named above."""
        names = names_in(figure, [bar.label for bar in self.bars])
        shown = [
            index for index in range(len(self.parts)) if any(bar.values[index] for bar in self.bars)
        ]
        key = [(self.parts[index], PARTS[index % len(PARTS)]) for index in shown]
        names_of = [name for name, _ in key]
        lines = [
            [key[place] for place in line]
            for line in key_lines(names_of, width_of(figure) - room(names))
        ]
        top = 0.22 + 0.2 * len(lines)
        height = 0.26 * len(self.bars) + 0.75 + top
        axes = area(figure, height, (room(names), 0.95, 0.55, top))
        for place, bar in enumerate(self.bars):
            start = 0.0
            for index in shown:
                value = bar.values[index] or 0.0
                shade = PARTS[index % len(PARTS)]
                (piece,) = axes.barh(place, value, left=start, height=0.68, color=shade)
                said = f"{bar.label}: {self.parts[index]} {value:.3g} of {bar.total}"
                tag(piece, bar.label, said)
                start += value
            axes.annotate(
                bar.total,
                xy=(start, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
            )
        name_rows(axes, [names[bar.label] for bar in self.bars])
        axes.set_xlim(0, axes.get_xlim()[1])
        name_axes(axes, self.x, None)
        _name_parts(figure, axes, lines)


def _name_parts(figure: Any, axes: Any, lines: Sequence[Sequence[tuple[str, str]]]) -> None:
    """Coloured squares with names in lines above the bars."""
    box = axes.get_position()
    width, height = figure.get_size_inches()
    for row, line in enumerate(reversed(lines)):
        x, y = box.x0 * width, box.y1 + (0.17 + 0.2 * row) / height
        for name, shade in line:
            figure.text(x / width, y, "■", color=shade, fontsize=11, va="center")
            figure.text((x + 0.16) / width, y, name, fontsize=8.5, va="center")
            x += key_width(name)
