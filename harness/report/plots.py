"""Plots: one matplotlib painter per kind of drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.report import numbers
from harness.report.drawings import (
    Axis,
    Bar,
    Curves,
    Forest,
    Histogram,
    Line,
    Mark,
    Panels,
    Point,
    Scatter,
    Stacks,
)
from harness.report.layout import shorten, spread

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
MOST_BANDS = 8
MOST_NAMES = 40


def colour(mark: Mark) -> str:
    """The variant's colour, the same in every figure."""
    return PALETTE[mark.colour]


def scatter(figure: Any, drawing: Scatter) -> None:
    """Points with intervals; names in a column at the right, each joined to its point."""
    points = drawing.points
    named = _worth_naming(drawing)
    names = shorten([point.label for point in named])
    height = max(4.2, LINE_HEIGHT * len(named) + 1.0)
    axes = _area(figure, height, (0.75, _room(names), 0.55, 0.28))
    for point in points:
        shade = colour(point.mark)
        if point.low is not None and point.high is not None:
            axes.plot([point.x] * 2, [point.low, point.high], color=shade, lw=1.2, alpha=0.6)
        face = shade if point.trained else PAPER
        edge = PAPER if point.trained else shade
        _dot(axes, (point.x, point.y), point.mark, face, edge)
    front = sorted((point.x, point.y) for point in points if point.on_front)
    if len(front) > 1:
        axes.plot(*zip(*front, strict=True), color=FAINT, lw=1.0, ls=(0, (4, 2)), zorder=2)
    axes.margins(x=0.08, y=0.08)
    _limit(axes, drawing)
    _name_axes(axes, drawing.x, drawing.y)
    spots = [(point.x, point.y, names[point.label], colour(point.mark)) for point in named]
    _name_at_right(axes, spots, height - 0.83)


def _worth_naming(drawing: Scatter) -> list[Point]:
    """All points, or those of the front and the best others where there are very many."""
    front = [point for point in drawing.points if point.on_front]
    others = [point for point in drawing.points if not point.on_front]
    return [*front, *others][:MOST_NAMES]


def _dot(axes: Any, at: tuple[float, float], mark: Mark, face: str, edge: str) -> None:
    shape = MARKERS[mark.marker]
    axes.plot([at[0]], [at[1]], marker=shape, ms=7, ls="", mfc=face, mec=edge, mew=1.1, zorder=4)


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


def forest(figure: Any, drawing: Forest) -> None:
    """One line per variant: name, interval, verdict; the margin is shaded around zero."""
    rows = drawing.rows
    names = shorten([row.label for row in rows])
    axes = _area(figure, 0.26 * len(rows) + 0.95, (_room(names), 1.0, 0.55, 0.2))
    axes.axvspan(-drawing.margin, drawing.margin, color=SHADE, lw=0, zorder=0)
    axes.axvline(0, color=INK, lw=0.9, zorder=1)
    for place, row in enumerate(rows):
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [place] * 2, color=colour(row.mark), lw=2, zorder=3)
        _dot(axes, (row.estimate, place), row.mark, colour(row.mark), PAPER)
        axes.annotate(
            row.verdict,
            xy=(1.02, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8.5,
            color=FAINT if row.verdict == "undecided" else INK,
        )
    _rows(axes, [names[row.label] for row in rows])
    _name_axes(axes, drawing.x, None)


def curves(figure: Any, drawing: Curves) -> None:
    """Curves named at their right end."""
    names = shorten([line.label for line in drawing.lines])
    height = max(3.6, LINE_HEIGHT * len(names) + 1.0)
    axes = _area(figure, height, (0.75, _room(names), 0.55, 0.2))
    for line in drawing.faint:
        axes.plot(line.x, line.y, color=GRID, lw=0.9, zorder=1)
    for line in drawing.lines:
        _curve(axes, line, marked=drawing.marked, banded=len(drawing.lines) <= MOST_BANDS)
    if drawing.doubling:
        ticks = sorted({x for line in drawing.lines for x in line.x})
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    else:
        _whole_steps(axes)
    axes.margins(x=0.02 if not drawing.marked else 0.06)
    _name_axes(axes, drawing.x, drawing.y)
    ends = [
        (line.x[-1], line.y[-1], names[line.label], colour(line.mark)) for line in drawing.lines
    ]
    _name_at_right(axes, ends, height - 0.75)


def _whole_steps(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _curve(axes: Any, line: Line, *, marked: bool, banded: bool) -> None:
    shade = colour(line.mark)
    dashes: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
    style = dashes[line.mark.marker % len(dashes)]
    marker = MARKERS[line.mark.marker] if marked else ""
    axes.plot(line.x, line.y, color=shade, ls=style, marker=marker, ms=6, mec=PAPER, zorder=3)
    if not line.low:
        return
    if marked:
        for x, low, high in zip(line.x, line.low, line.high, strict=True):
            axes.plot([x, x], [low, high], color=shade, lw=1.1, alpha=0.6)
    elif banded:
        axes.fill_between(line.x, line.low, line.high, color=shade, alpha=0.15, lw=0)


def stacks(figure: Any, drawing: Stacks) -> None:
    """Stacked horizontal bars with the total at the end and the parts named above."""
    names = shorten([bar.label for bar in drawing.bars])
    shown = [
        index
        for index in range(len(drawing.parts))
        if any(bar.values[index] for bar in drawing.bars)
    ]
    key = [(drawing.parts[index], PARTS[index % len(PARTS)]) for index in shown]
    lines = _key_lines(key, WIDTH - _room(names))
    top = 0.22 + 0.2 * len(lines)
    height = 0.26 * len(drawing.bars) + 0.75 + top
    axes = _area(figure, height, (_room(names), 0.95, 0.55, top))
    for place, bar in enumerate(drawing.bars):
        start = 0.0
        for index in shown:
            value = bar.values[index] or 0.0
            axes.barh(place, value, left=start, height=0.68, color=PARTS[index % len(PARTS)])
            start += value
        axes.annotate(
            bar.total,
            xy=(start, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    _rows(axes, [names[bar.label] for bar in drawing.bars])
    axes.set_xlim(0, axes.get_xlim()[1])
    _name_axes(axes, drawing.x, None)
    _name_parts(figure, axes, lines)


def _key_lines(parts: Sequence[tuple[str, str]], room: float) -> list[list[tuple[str, str]]]:
    """Named colours broken into lines that fit ``room`` inches."""
    lines: list[list[tuple[str, str]]] = [[]]
    used = 0.0
    for name, shade in parts:
        width = _key_width(name)
        if lines[-1] and used + width > room:
            lines.append([])
            used = 0.0
        lines[-1].append((name, shade))
        used += width
    return lines


def _key_width(name: str) -> float:
    return 0.34 + LETTER * len(name)


def _name_parts(figure: Any, axes: Any, lines: Sequence[Sequence[tuple[str, str]]]) -> None:
    """Coloured squares with names in lines above the bars."""
    box = axes.get_position()
    width, height = figure.get_size_inches()
    for row, line in enumerate(reversed(lines)):
        x, y = box.x0 * width, box.y1 + (0.17 + 0.2 * row) / height
        for name, shade in line:
            figure.text(x / width, y, "■", color=shade, fontsize=11, va="center")
            figure.text((x + 0.16) / width, y, name, fontsize=8.5, va="center")
            x += _key_width(name)


def panels(figure: Any, drawing: Panels) -> None:
    """Side by side panels over common rows; predicted values are hollow, measured ones filled."""
    names = shorten([bar.label for bar in drawing.bars])
    height = 0.26 * len(drawing.bars) + 1.3
    left, top, bottom = _room(names), 0.55, 0.55
    count = len(drawing.parts)
    each = (WIDTH - left - 0.15) / count
    figure.set_size_inches(WIDTH, height)
    first = None
    for part, title in enumerate(drawing.parts):
        box = (
            (left + part * each) / WIDTH,
            bottom / height,
            (each - 0.12) / WIDTH,
            1 - (bottom + top) / height,
        )
        axes = figure.add_axes(box, sharex=first, sharey=first)
        first = first or axes
        axes.set_title(title, fontsize=9, loc="left", color=INK)
        for place, bar in enumerate(drawing.bars):
            _pair(axes, place, bar, part)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelleft=part == 0)
        axes.spines["left"].set_visible(False)
    if first is None:
        return
    _rows(first, [names[bar.label] for bar in drawing.bars])
    first.set_xlim(0, first.get_xlim()[1] * 1.05)
    figure.text(left / WIDTH, 0.12 / height, drawing.x.title, fontsize=9)
    figure.text(left / WIDTH, 1 - 0.15 / height, "● measured   ○ predicted", fontsize=8.5, va="top")


def _pair(axes: Any, place: int, bar: Bar, part: int) -> None:
    measured = bar.values[part]
    predicted = bar.beside[part] if bar.beside else None
    if measured is not None and predicted is not None:
        axes.plot([predicted, measured], [place] * 2, color=FAINT, lw=0.9, zorder=2)
    if predicted is not None:
        axes.plot([predicted], [place], marker="o", ms=7, mfc=PAPER, mec=colour(bar.mark), zorder=3)
    if measured is not None:
        axes.plot([measured], [place], marker="o", ms=5, color=colour(bar.mark), zorder=4)


def histogram(figure: Any, drawing: Histogram) -> None:
    """Bars with their counts on top, one per length class."""
    axes = _area(figure, 3.0, (0.75, 0.2, 0.55, 0.3))
    places = range(len(drawing.bounds))
    axes.bar(places, drawing.counts, color=PALETTE[0], width=0.86)
    for place, count in zip(places, drawing.counts, strict=True):
        axes.annotate(
            str(count),
            xy=(place, count),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=8 if len(drawing.bounds) <= 20 else 6,
        )
    every = max(1, math.ceil(len(drawing.bounds) / 16))
    ticks = [place for place in places if place % every == 0]
    axes.set_xticks(ticks, [f"≤ {drawing.bounds[place]:,}" for place in ticks], fontsize=8)
    axes.grid(visible=False, axis="x")
    for bound, label in drawing.cuts:
        edge = sum(1 for upper in drawing.bounds if upper <= bound) - 0.5
        axes.axvline(edge, color=INK, lw=1.0, ls=(0, (4, 2)))
        axes.annotate(
            label,
            xy=(edge, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, 2),
            textcoords="offset points",
            va="bottom",
            fontsize=8,
        )
    _name_axes(axes, drawing.x, drawing.y)


def _room(names: dict[str, str]) -> float:
    """Inches for a column of names."""
    return 0.4 + LETTER * max((len(name) for name in names.values()), default=0)


def _area(figure: Any, height: float, margins: tuple[float, float, float, float]) -> Any:
    """Axes with left, right, bottom and top margins in inches."""
    left, right, bottom, top = margins
    figure.set_size_inches(WIDTH, height)
    box = (left / WIDTH, bottom / height, 1 - (left + right) / WIDTH, 1 - (bottom + top) / height)
    return figure.add_axes(box)


def _rows(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _name_axes(axes: Any, x: Axis, y: Axis | None) -> None:
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


def _name_at_right(
    axes: Any, spots: Sequence[tuple[float, float, str, str]], inches: float
) -> None:
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
