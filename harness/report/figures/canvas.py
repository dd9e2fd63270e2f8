"""Canvas: colours, sizes, axes and names that all figures share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from harness.report import numbers
from harness.report.layout import spread

# Okabe and Ito's palette for colour-blind readers, without black and with a darker yellow.
PALETTE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#b58900",
    "#7a5fc0",
    "#7f7f7f",
)
PARTS = ("#9fb8c8", "#3f6f8f", "#7fa3b8", "#c9a227", "#b5532e", "#6b8f71", "#a8a8a8")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
INK, FAINT, GRID, SHADE, PAPER = "#24292e", "#6a737c", "#d8dde3", "#e6ebf1", "#fffffe"
WIDTH = 8.0
LETTER = 0.078
LINE_HEIGHT = 0.165


@dataclass(frozen=True)
class Mark:
    """How a variant looks in every figure: index into the palette and the markers."""

    colour: int
    marker: int


@dataclass(frozen=True)
class Axis:
    """An axis title with its unit."""

    title: str
    better: Literal["", "lower", "higher"] = ""
    percent: bool = False


class Drawing(Protocol):
    """What a figure shows, as plain data that can paint itself."""

    def paint(self, figure: Any) -> None:
        """Paint on an empty matplotlib figure."""


def colour(mark: Mark) -> str:
    """The variant's colour, the same in every figure."""
    return PALETTE[mark.colour]


def dot(axes: Any, at: tuple[float, float], mark: Mark, face: str, edge: str) -> None:
    """A variant's marker."""
    shape = MARKERS[mark.marker]
    axes.plot([at[0]], [at[1]], marker=shape, ms=7, ls="", mfc=face, mec=edge, mew=1.1, zorder=4)


def room(names: dict[str, str]) -> float:
    """Inches for a column of names."""
    return 0.4 + LETTER * max((len(name) for name in names.values()), default=0)


def area(figure: Any, height: float, margins: tuple[float, float, float, float]) -> Any:
    """Axes with left, right, bottom and top margins in inches."""
    left, right, bottom, top = margins
    figure.set_size_inches(WIDTH, height)
    box = (left / WIDTH, bottom / height, 1 - (left + right) / WIDTH, 1 - (bottom + top) / height)
    return figure.add_axes(box)


def name_rows(axes: Any, names: Sequence[str]) -> None:
    """One name a row, the first one on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def name_axes(axes: Any, x: Axis, y: Axis | None) -> None:
    """Titles of the axes, and which way is better."""
    axes.set_xlabel(_axis_text(x))
    if x.percent:
        axes.xaxis.set_major_formatter(lambda value, _: _percent_tick(value))
    if y is not None:
        axes.set_ylabel(_axis_text(y))


def _percent_tick(value: float) -> str:
    if abs(value) < 1e-12:
        return "0 %"
    sign = "+" if value > 0 else numbers.MINUS
    return f"{sign}{abs(value) * 100:.3g} %"


def _axis_text(axis: Axis) -> str:
    better = {"lower": "  (lower is better)", "higher": "  (higher is better)", "": ""}
    return axis.title + better[axis.better]


def name_at_right(axes: Any, spots: Sequence[tuple[float, float, str, str]], inches: float) -> None:
    """Names beside the right edge in the order of y, with a thin line to each (x, y)."""
    axes.get_xlim(), axes.get_ylim()  # settles the limits that transData depends on
    to_axes = axes.transAxes.inverted()
    ends = [to_axes.transform(axes.transData.transform((x, y))) for x, y, _, _ in spots]
    heights = spread([end[1] for end in ends], LINE_HEIGHT / inches, 0.0, 1.0)
    for end, height, (_, _, name, shade) in zip(ends, heights, spots, strict=True):
        axes.plot(
            [end[0], 1.02],
            [end[1], height],
            transform=axes.transAxes,
            clip_on=False,
            color=shade,
            lw=0.7,
            alpha=0.7,
            zorder=1,
        )
        axes.text(1.03, height, name, transform=axes.transAxes, va="center", fontsize=8.5)
