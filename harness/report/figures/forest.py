"""Forest: many variants in rows, what was measured of each in panels side by side."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness import numbers
from harness.report.figures.canvas import (
    GRID,
    INK,
    LETTER,
    NARROW,
    SHADE,
    Mark,
    colour,
    dot,
    name_rows,
    names_in,
    tag,
    width_of,
)
from harness.report.figures.key import LINE, draw_key, key_lines

ROW = 0.19  # inches
TITLE_LINE, TICKS, BETWEEN, EDGE = 0.15, 0.24, 0.18, 0.08
PAD = 0.09  # inches between a panel and its texts
SMALL_LETTER = 0.066  # inches of a letter of the texts beside a panel
SMALL_DOT = 5.5
TALL = 20  # rows from which on the scale stands above the rows too
UNEVEN = 5  # margins that the values exceed where the scale turns logarithmic beyond the margin
INSIDE = 0.8  # decades that the margin takes up on such a scale
RINGED = "◉ "
LEAST = 0.9  # inches of a panel of intervals
FEW_OUTSIDE = 0.1  # the share of variants that an axis may cut off
STEPS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)


@dataclass(frozen=True)
class Estimate:
    """A value of one row in one panel, its interval where there is one, and how it is written."""

    value: float
    low: float | None = None
    high: float | None = None
    text: str = ""
    strong: bool = False


@dataclass(frozen=True)
class ForestRow:
    """A variant: its name and mark, its estimates in the order of the panels, what it tells.

    ``ringed`` is the one that is recommended.
    """

    label: str
    mark: Mark
    estimates: tuple[Estimate | None, ...]
    said: str
    ringed: bool = False


@dataclass(frozen=True)
class Panel:
    """What a column of estimates shows.

    ``share`` is its part of the width. ``bars`` start at zero and have no interval. ``margin`` is
    shaded around zero; where values reach far beyond it, the scale is even within the margin and
    logarithmic outside. Values above ``highest`` are drawn as arrows at the edge. ``limit`` is the
    reader's own, a line.
    """

    title: str
    share: float = 1.0
    bars: bool = False
    margin: float | None = None
    highest: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Forest:
    """One row a variant, the first on top; estimates of all rows in panels side by side."""

    panels: tuple[Panel, ...]
    rows: tuple[ForestRow, ...]
    key: tuple[tuple[Mark, str], ...] = ()

    def paint(self, figure: Any) -> None:
        """Names at the left, then each panel with its estimates as text where there is room."""
        short = names_in(figure, [row.label for row in self.rows])
        names = {row.label: RINGED * row.ringed + short[row.label] for row in self.rows}
        boxes, beside = _across(self, figure, max(map(len, names.values()), default=0))
        titles = [
            _wrapped(panel.title, wide + text)
            for panel, (_, wide), text in zip(self.panels, boxes, beside, strict=True)
        ]
        key = len(key_lines([name for _, name in self.key], width_of(figure) - EDGE))
        lines = max(map(len, titles))
        tall = ROW * len(self.rows)
        above = TICKS if len(self.rows) >= TALL else PAD
        top = EDGE + (LINE * key + EDGE if self.key else 0) + TITLE_LINE * lines + above
        height = top + tall + TICKS + EDGE
        figure.set_size_inches(width_of(figure), height)
        for place, (left, wide) in enumerate(boxes):
            box = (left, TICKS + EDGE, wide, tall)
            axes = figure.add_axes(_shares(box, figure))
            if place == 0:
                name_rows(axes, [names[row.label] for row in self.rows])
            else:
                name_rows(axes, [""] * len(self.rows))
            _paint_panel(axes, self, place, text=beside[place] > 0)
            y = (TICKS + EDGE + tall + above) / height
            words = "\n".join(titles[place])
            figure.text(left / width_of(figure), y, words, fontsize=8.5, va="bottom")
        if self.key:
            draw_key(figure, self.key, EDGE, SMALL_DOT)


def _wrapped(title: str, inches: float) -> list[str]:
    """Lines of a title that fit; it may hold line breaks of its own."""
    letters = max(int(inches / SMALL_LETTER), 8)
    return [line for part in title.splitlines() for line in textwrap.wrap(part, letters)]


def _across(
    forest: Forest, figure: Any, letters: int
) -> tuple[list[tuple[float, float]], list[float]]:
    """The left edge and width of each panel in inches, and the room of the texts beside it.

    Texts give way to what is drawn: first those of intervals, on a phone at once, then of bars.
    """
    x = 0.14 + LETTER * letters
    between = BETWEEN * len(forest.panels)
    shares = sum(panel.share for panel in forest.panels)
    wide = [forest.panels] if width_of(figure) > NARROW else []
    for kept in (*wide, [panel for panel in forest.panels if panel.bars], ()):
        beside = _beside(forest, kept)
        unit = (width_of(figure) - x - sum(beside) - between) / shares
        if all(unit * panel.share >= LEAST for panel in forest.panels if not panel.bars):
            break
    boxes = []
    for panel, text in zip(forest.panels, beside, strict=True):
        boxes.append((x, unit * panel.share))
        x += unit * panel.share + text + BETWEEN
    return boxes, beside


def _beside(forest: Forest, kept: Sequence[Panel]) -> list[float]:
    """Inches that the texts beside each panel take, of those that keep theirs."""
    beside = []
    for place, panel in enumerate(forest.panels):
        texts = [found.text for row in forest.rows if (found := row.estimates[place])]
        longest = max(map(len, texts), default=0) if panel in kept else 0
        beside.append(longest * SMALL_LETTER + PAD if longest else 0.0)
    return beside


def _shares(box: tuple[float, float, float, float], figure: Any) -> tuple[float, ...]:
    """A box in inches as shares of the figure."""
    width, height = figure.get_size_inches()
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height


def _paint_panel(axes: Any, forest: Forest, place: int, *, text: bool) -> None:
    panel = forest.panels[place]
    _scale(axes, panel, [row.estimates[place] for row in forest.rows])
    axes.grid(visible=True, axis="y", color=GRID, lw=0.4)
    for number, row in enumerate(forest.rows):
        estimate = row.estimates[place]
        if estimate is None:
            continue
        beyond = _beyond(panel, estimate)
        if panel.bars:
            _bar(axes, row, estimate, number)
        elif beyond:
            _arrow(axes, row, number)
        else:
            _interval(axes, row, estimate, number)
        if text:
            _write(axes, row, estimate, number)
        elif beyond:
            _write_inside(axes, row, estimate, number)
    above = len(forest.rows) >= TALL
    axes.tick_params(axis="x", labelsize=8, length=0, labeltop=above, labelbottom=True)


def _beyond(panel: Panel, estimate: Estimate) -> bool:
    """Whether a panel is cut off below a value; its interval then shapes no scale either."""
    return panel.highest is not None and estimate.value > panel.highest


def _write(axes: Any, row: ForestRow, estimate: Estimate, at: int) -> None:
    """An estimate as text at the right of its panel."""
    look = {"ha": "left", "fontweight": "bold" if estimate.strong else "normal"}
    words = axes.annotate(estimate.text, xytext=(72 * PAD * 0.8, 0), **_at_edge(at), **look)
    tag(words, row.label, row.said)


def _write_inside(axes: Any, row: ForestRow, estimate: Estimate, at: int) -> None:
    """The value alone, just inside the panel's right edge."""
    value = estimate.text.partition(" ")[0]
    words = axes.annotate(value, xytext=(-SMALL_DOT, 0), ha="right", **_at_edge(at))
    tag(words, row.label, row.said)


def _at_edge(at: int) -> dict[str, Any]:
    place = {"xy": (1, at), "xycoords": ("axes fraction", "data")}
    return place | {"textcoords": "offset points", "va": "center", "fontsize": 8}


def _bar(axes: Any, row: ForestRow, estimate: Estimate, at: int) -> None:
    (bar,) = axes.barh(at, estimate.value, height=0.55, color=colour(row.mark), alpha=0.55)
    tag(bar, row.label, row.said)


def _arrow(axes: Any, row: ForestRow, at: int) -> None:
    """Where the panel is cut off: the value lies further right."""
    look = {"marker": ">", "ms": SMALL_DOT, "color": colour(row.mark), "clip_on": False}
    (point,) = axes.plot([1], [at], ls="", transform=axes.get_yaxis_transform(), **look)
    tag(point, row.label, row.said)


def _interval(axes: Any, row: ForestRow, estimate: Estimate, at: int) -> None:
    shade, said = colour(row.mark), (row.label, row.said)
    if estimate.low is not None and estimate.high is not None:
        (bar,) = axes.plot([estimate.low, estimate.high], [at] * 2, color=shade, lw=1.6, zorder=3)
        tag(bar, *said)
    dot(axes, (estimate.value, at), row.mark, said, SMALL_DOT)


def _scale(axes: Any, panel: Panel, estimates: Sequence[Estimate | None]) -> None:
    """Limits and ticks of a panel, zero and the margin."""
    known = [found for found in estimates if found is not None and not _beyond(panel, found)]
    ends = [
        end for found in known for end in (found.value, found.low, found.high) if end is not None
    ]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    high = high if panel.highest is None else panel.highest
    narrow = width_of(axes.figure) <= NARROW
    axes.xaxis.set_major_formatter(lambda value, _: _tick(value))
    axes.locator_params(axis="x", nbins=2 if panel.bars else 4 if narrow else 5)
    if panel.bars:
        axes.set_xlim(0, max(high, panel.limit or 0) * 1.02)
        if panel.limit is not None:
            axes.axvline(panel.limit, color=INK, lw=1.0)
        return
    axes.axvline(0, color=INK, lw=0.9, zorder=1)
    if panel.margin is not None:
        axes.axvspan(-panel.margin, panel.margin, color=SHADE, lw=0, zorder=0)
        low, high = min(low, -panel.margin / 2), max(high, panel.margin)
        if max(-low, high) > UNEVEN * panel.margin:
            _turn_uneven(axes, panel.margin, (low, high), 1 if narrow else 0.5)
            return
    pad = 0.06 * (high - low)
    axes.set_xlim(low - pad, high + (pad if panel.highest is None else 0))


def _turn_uneven(axes: Any, margin: float, ends: tuple[float, float], least: float) -> None:
    """A scale that is even within the margin and logarithmic outside; ``least``: of its steps."""
    axes.set_xscale("symlog", linthresh=margin, linscale=INSIDE)
    low, high = (
        end * 1.2 if abs(end) > margin else end + math.copysign(0.1 * margin, end) for end in ends
    )
    low = low if low > -margin else 1.25 * low  # where the best are, room for their markers
    axes.set_xlim(low, high)
    sizes = [margin * step for step in STEPS if step >= least]
    ticks = [0.0, margin, *reversed(sizes), -margin, *(-size for size in reversed(sizes))]
    kept = _legible(axes, [tick for tick in ticks if low <= tick <= high])
    axes.set_xticks(kept, [_tick(tick) for tick in kept])
    axes.minorticks_off()


def _legible(axes: Any, ticks: Sequence[float]) -> list[float]:
    """Ticks whose numbers do not run into each other, the first ones before the others."""
    places = axes.get_xaxis_transform().transform([(tick, 0) for tick in ticks])[:, 0]
    kept: list[tuple[float, float, float]] = []
    for tick, place in zip(ticks, places, strict=True):
        half = (len(_tick(tick)) * SMALL_LETTER + PAD) / 2 * axes.figure.dpi
        if all(abs(place - other) >= half + room for _, other, room in kept):
            kept.append((tick, float(place), half))
    return sorted(tick for tick, _, _ in kept)


def cut_at(estimates: Sequence[Estimate | None]) -> float | None:
    """Where to cut a scale: below the few values that would take up more than half of it."""
    known = [found for found in estimates if found is not None]
    values = sorted(found.value for found in known)
    for count in range(1, int(FEW_OUTSIDE * len(values)) + 1):
        last, next_one = values[-count - 1], values[-count]
        if next_one - last <= (values[-1] - values[0]) / 2:
            continue
        reach = max(0.0, *(found.high or found.value for found in known if found.value <= last))
        cut = _round_up(reach + (0.05 * (reach - min(values[0], 0.0)) or 1.0))
        return cut if cut < next_one else None
    return None


def panel_title(quantity: str, unit: str, better: str, highest: float | None) -> str:
    """The title of a panel of changes, which may be cut off at a value."""
    cut = "" if highest is None else f"; cut off at {highest:g}"
    return f"{quantity}, {unit}\n{better} is better{cut}"


def _round_up(value: float) -> float:
    """A positive number with two significant digits, none of them too small."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit) * unit:.2g}")


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", numbers.MINUS)
