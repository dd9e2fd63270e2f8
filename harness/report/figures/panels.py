"""Panels: a panel for each part, measured values beside predicted ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.report.figures.bars import Bar
from harness.report.figures.canvas import (
    FAINT,
    INK,
    NARROW,
    PAPER,
    Axis,
    colour,
    name_rows,
    names_in,
    room,
    tag,
    width_of,
)


@dataclass(frozen=True)
class Panels:
    """A panel per part over common rows, values filled and those beside them hollow.

    ``told`` says what the filled and the hollow ones are.
    """

    x: Axis
    parts: tuple[str, ...]
    bars: tuple[Bar, ...]
    told: tuple[str, str] = ("measured", "predicted")
    from_zero: bool = True

    def paint(self, figure: Any) -> None:
        """Panels side by side, one below the other on a phone."""
        names = names_in(figure, [bar.label for bar in self.bars])
        wide = width_of(figure) > NARROW
        columns = len(self.parts) if wide else 1
        rows = -(-len(self.parts) // columns)
        left, top, bottom, gap = room(names), 0.55, 0.55, 0.32
        tall = 0.26 * len(self.bars) + 0.2
        height = rows * (tall + gap) - gap + top + bottom
        each = (width_of(figure) - left - 0.15) / columns
        figure.set_size_inches(width_of(figure), height)
        first = None
        for part, title in enumerate(self.parts):
            x = left + part % columns * each
            y = height - top - (part // columns + 1) * (tall + gap) + gap
            box = (x, y, each - 0.12, tall)
            axes = figure.add_axes(_shares(box, figure), sharex=first, sharey=first)
            first = first or axes
            axes.set_title(title, fontsize=9, loc="left", color=INK)
            for place, bar in enumerate(self.bars):
                _pair(axes, place, bar, part, self.told)
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", length=0, labelleft=part % columns == 0)
            axes.tick_params(axis="x", labelbottom=part // columns == rows - 1)
            axes.spines["left"].set_visible(False)
        if first is None:
            return
        name_rows(first, [names[bar.label] for bar in self.bars])
        if self.from_zero:
            first.set_xlim(0, first.get_xlim()[1] * 1.05)
        x = left / width_of(figure) if wide else 0.03
        figure.text(x, 0.12 / height, self.x.title, fontsize=9 if wide else 8)
        figure.text(
            left / width_of(figure),
            1 - 0.15 / height,
            f"● {self.told[0]}   ○ {self.told[1]}",
            fontsize=8.5,
            va="top",
        )


def _shares(box: tuple[float, float, float, float], figure: Any) -> tuple[float, ...]:
    """A box in inches as shares of the figure."""
    width, height = figure.get_size_inches()
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height


def _pair(axes: Any, place: int, bar: Bar, part: int, told: tuple[str, str]) -> None:
    measured = bar.values[part]
    predicted = bar.beside[part] if bar.beside else None
    known = [(word, value) for word, value in zip(told, (measured, predicted), strict=True)]
    words = ", ".join(f"{word} {value:.4g}" for word, value in known if value is not None)
    said = (bar.label, f"{bar.label}: {words}")
    if measured is not None and predicted is not None:
        axes.plot([predicted, measured], [place] * 2, color=FAINT, lw=0.9, zorder=2)
    if predicted is not None:
        hollow = {"marker": "o", "ms": 7, "mfc": PAPER, "mec": colour(bar.mark)}
        (point,) = axes.plot([predicted], [place], zorder=3, **hollow)
        tag(point, *said)
    if measured is not None:
        filled = {"marker": "o", "ms": 5, "color": colour(bar.mark)}
        (point,) = axes.plot([measured], [place], zorder=4, **filled)
        tag(point, *said)
