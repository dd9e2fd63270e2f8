"""Canvas: colours, sizes, axes and names that all figures share."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from harness import numbers
from harness.report.layout import LABEL_LENGTH, shorten, spread

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
NARROW = 4.3
NARROW_LABEL = 17
NARROW_TITLE = 36
TAG, SEPARATOR = "variant", "\u241f"
LETTER = 0.078
LINE_HEIGHT = 0.165
DOT = 7.0  # points of a marker


@dataclass(frozen=True)
class Mark:
    """How a variant looks in every figure: indices into the palette and the markers, and a fill.

    The shape says the method, the fill says the bits of the weights.
    """

    colour: int
    marker: int
    fill: Literal["full", "left", "none"] = "full"


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


def width_of(figure: Any) -> float:
    """Inches that a figure may take."""
    return float(figure.get_size_inches()[0])


def names_in(figure: Any, labels: Sequence[str]) -> dict[str, str]:
    """Names that fit beside a figure of this width."""
    return shorten(labels, LABEL_LENGTH if width_of(figure) > NARROW else NARROW_LABEL)


def tag(artist: Any, label: str, said: str) -> None:
    """Say what an artist shows of which variant; :mod:`harness.report.figures.draw` writes it."""
    artist.set_gid(SEPARATOR.join((TAG, label, said)))


def dot(
    axes: Any, at: tuple[float, float], mark: Mark, said: tuple[str, str], size: float = DOT
) -> None:
    """A variant's marker; ``said`` is its label and what the point tells."""
    shade = colour(mark)
    (point,) = axes.plot([at[0]], [at[1]], ls="", zorder=4, **look(mark, shade, size))
    tag(point, *said)


def look(mark: Mark, shade: str, size: float = DOT) -> dict[str, Any]:
    """A marker's shape and fill, as matplotlib takes them; small ones have no pale edge."""
    edge = PAPER if mark.fill == "full" and size >= DOT else shade
    return {
        "marker": MARKERS[mark.marker],
        "ms": size,
        "fillstyle": "left" if mark.fill == "left" else "full",
        "mfc": PAPER if mark.fill == "none" else shade,
        "markerfacecoloralt": PAPER,
        "mec": edge,
        "mew": (1.1 if mark.fill == "full" else 1.4) * size / DOT,
    }


def room(names: dict[str, str]) -> float:
    """Inches for a column of names."""
    return 0.4 + LETTER * max((len(name) for name in names.values()), default=0)


def area(figure: Any, height: float, margins: tuple[float, float, float, float]) -> Any:
    """Axes with left, right, bottom and top margins in inches."""
    left, right, bottom, top = margins
    width = width_of(figure)
    figure.set_size_inches(width, height)
    box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
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
    from matplotlib.ticker import AutoLocator

    text = _axis_text(x)
    if width_of(axes.figure) <= NARROW:
        text = "\n".join(textwrap.wrap(text, NARROW_TITLE))
        if isinstance(axes.xaxis.get_major_locator(), AutoLocator):
            axes.locator_params(axis="x", nbins=3 if x.percent else 5)
    axes.set_xlabel(text, fontsize=8 if "\n" in text else 9)
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


@dataclass(frozen=True)
class Spot:
    """A name beside the right edge: of which variant, at which height, with what it tells."""

    label: str
    name: str
    mark: Mark
    at: tuple[float, float]
    said: str


def name_at_right(axes: Any, spots: Sequence[Spot], inches: float) -> None:
    """Names beside the right edge in the order of y, each with its marker.

    Lines run in the margin only, from a point's height to its name, so that they neither cross
    each other nor run through points.
    """
    axes.get_xlim(), axes.get_ylim()  # settles the limits that transData depends on
    to_axes = axes.transAxes.inverted()
    ends = [to_axes.transform(axes.transData.transform(spot.at)) for spot in spots]
    heights = spread([end[1] for end in ends], LINE_HEIGHT / inches, 0.0, 1.0)
    unit = 1 / (width_of(axes.figure) * axes.get_position().width)
    beside = {"transform": axes.transAxes, "clip_on": False}
    for end, height, spot in zip(ends, heights, spots, strict=True):
        shade = colour(spot.mark)
        x = (1 + 0.04 * unit, 1 + 0.16 * unit)
        axes.plot(x, [end[1], height], color=shade, lw=0.7, alpha=0.8, zorder=1, **beside)
        (point,) = axes.plot([1 + 0.23 * unit], [height], **look(spot.mark, shade), **beside)
        tag(point, spot.label, spot.said)
        name = axes.text(
            1 + 0.33 * unit, height, spot.name, transform=axes.transAxes, va="center", fontsize=8.5
        )
        tag(name, spot.label, spot.said)
