"""Key: what the marks and colours of a figure stand for, in lines above it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.report.figures.canvas import LETTER, Mark, colour, look

LINE = 0.2  # inches
SIGN = 0.16  # inches from the middle of a sign to its name


def key_lines(names: Sequence[str], inches: float) -> list[list[int]]:
    """Places of the names in lines that fit ``inches``, in their order."""
    lines: list[list[int]] = [[]]
    used = 0.0
    for place, name in enumerate(names):
        width = key_width(name)
        if lines[-1] and used + width > inches:
            lines.append([])
            used = 0.0
        lines[-1].append(place)
        used += width
    return lines


def key_width(name: str) -> float:
    """Inches of a sign and its name."""
    return 0.34 + LETTER * len(name)


def draw_key(figure: Any, key: Sequence[tuple[Mark, str]], inset: float, size: float) -> None:
    """Marks of that size and their names, in lines from ``inset`` inches below the top left.

    The figure has its final height already.
    """
    width, height = figure.get_size_inches()
    lines = key_lines([name for _, name in key], width - inset)
    box = (0.0, (height - inset - LINE * len(lines)) / height, 1.0, LINE * len(lines) / height)
    axes = figure.add_axes(box)
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    for row, line in enumerate(lines):
        x = inset
        for place in line:
            mark, name = key[place]
            axes.plot([x + 0.05], [row], ls="", **look(mark, colour(mark), size))
            axes.text(x + 0.05 + SIGN, row, name, fontsize=8.5, va="center")
            x += key_width(name)
