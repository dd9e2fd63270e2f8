"""Panels: a panel for each part, measured values beside predicted ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.report.figures.bars import Bar
from harness.report.figures.canvas import FAINT, INK, PAPER, WIDTH, Axis, colour, name_rows, room
from harness.report.layout import shorten


@dataclass(frozen=True)
class Panels:
    """A panel per part over common rows: measured values filled, predicted ones hollow."""

    x: Axis
    parts: tuple[str, ...]
    bars: tuple[Bar, ...]

    def paint(self, figure: Any) -> None:
        """Panels side by side; predicted values are hollow, measured ones filled."""
        names = shorten([bar.label for bar in self.bars])
        height = 0.26 * len(self.bars) + 1.3
        left, top, bottom = room(names), 0.55, 0.55
        count = len(self.parts)
        each = (WIDTH - left - 0.15) / count
        figure.set_size_inches(WIDTH, height)
        first = None
        for part, title in enumerate(self.parts):
            box = (
                (left + part * each) / WIDTH,
                bottom / height,
                (each - 0.12) / WIDTH,
                1 - (bottom + top) / height,
            )
            axes = figure.add_axes(box, sharex=first, sharey=first)
            first = first or axes
            axes.set_title(title, fontsize=9, loc="left", color=INK)
            for place, bar in enumerate(self.bars):
                _pair(axes, place, bar, part)
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", length=0, labelleft=part == 0)
            axes.spines["left"].set_visible(False)
        if first is None:
            return
        name_rows(first, [names[bar.label] for bar in self.bars])
        first.set_xlim(0, first.get_xlim()[1] * 1.05)
        figure.text(left / WIDTH, 0.12 / height, self.x.title, fontsize=9)
        figure.text(
            left / WIDTH, 1 - 0.15 / height, "● measured   ○ predicted", fontsize=8.5, va="top"
        )


def _pair(axes: Any, place: int, bar: Bar, part: int) -> None:
    measured = bar.values[part]
    predicted = bar.beside[part] if bar.beside else None
    if measured is not None and predicted is not None:
        axes.plot([predicted, measured], [place] * 2, color=FAINT, lw=0.9, zorder=2)
    if predicted is not None:
        axes.plot([predicted], [place], marker="o", ms=7, mfc=PAPER, mec=colour(bar.mark), zorder=3)
    if measured is not None:
        axes.plot([measured], [place], marker="o", ms=5, color=colour(bar.mark), zorder=4)
