"""Figures: draws drawings with matplotlib, the same bytes for the same data."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from harness.report.drawings import Axis, Drawing, Forest, Mark, Scatter

# Okabe and Ito's palette for colour-blind readers, without black and with a darker yellow.
PALETTE = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#b58900", "#6a51a3", "#7f7f7f",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
INK, FAINT, GRID, SHADE, PAPER = "#24292e", "#6a737c", "#d8dde3", "#eceff3", "#fffffe"
DARK = {INK: "#e6edf3", FAINT: "#9aa4ae", GRID: "#3a424b", SHADE: "#21282f", PAPER: "#0d1117"}
NAMES = {INK: "--ink", FAINT: "--faint", GRID: "--grid", SHADE: "--shade", PAPER: "--paper"}
LABEL_LENGTH = 34
SETTINGS = {
    "svg.hashsalt": "finetune-harness",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "lines.linewidth": 1.6,
}


def draw(drawing: Drawing, description: str) -> tuple[bytes, bytes]:
    """Draw a figure; returns its SVG and its PNG (at 144 dots per inch)."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(SETTINGS):
        figure = Figure()
        FigureCanvasAgg(figure)
        painters: dict[type, Callable[[Any, Any], None]] = {
            Scatter: draw_scatter,
            Forest: draw_forest,
        }
        painters[type(drawing)](figure, drawing)
        vector, raster = io.BytesIO(), io.BytesIO()
        plain = {"Date": None, "Creator": None}
        figure.savefig(vector, format="svg", metadata=plain)
        figure.savefig(raster, format="png", dpi=144, metadata={"Software": None})
    return _described(vector.getvalue(), description), raster.getvalue()


def _described(svg: bytes, description: str) -> bytes:
    """Name the picture for screen readers; drop what matplotlib adds for itself."""
    from html import escape

    text = svg.decode()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<\?xml.*?<svg", "<svg", text, count=1, flags=re.DOTALL)
    title = f"<title>{escape(description)}</title>"
    text = re.sub(r"(<svg[^>]*)>", r'\1 role="img">', text, count=1)
    return text.replace('role="img">', f'role="img">\n {title}', 1).encode()


def darken(svg: bytes) -> bytes:
    """The same picture on a dark page."""
    text = svg.decode()
    for light, dark in DARK.items():
        text = text.replace(light, dark)
    return text.encode()


def inline(svg: bytes, name: str) -> str:
    """The same picture for a page that sets its own ink and paper; ids get ``name`` before them."""
    text = svg.decode()
    for colour, variable in NAMES.items():
        text = text.replace(colour, f"var({variable})")
    return re.sub(r'((?:\bid=|xlink:href=|clip-path=)"(?:url\(#|#)?)', rf"\g<1>{name}-", text)


def shorten(labels: Sequence[str], length: int = LABEL_LENGTH) -> dict[str, str]:
    """Labels that fit, with the middle left out of long ones, still telling them apart."""
    short: dict[str, str] = {}
    for label in labels:
        text = label
        if len(label) > length:
            head = length // 2
            text = f"{label[:head]}…{label[-(length - head - 1) :]}"
        while text in short.values():
            text += "′"
        short[label] = text
    return short


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions close to the wanted ones, at least ``gap`` apart, within bounds if they fit."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed = [wanted[index] for index in order]
    for _ in range(200):
        moved = False
        for lower in range(len(placed) - 1):
            overlap = gap - (placed[lower + 1] - placed[lower])
            if overlap > 1e-9:
                placed[lower] -= overlap / 2
                placed[lower + 1] += overlap / 2
                moved = True
        if not moved:
            break
    if placed:
        shift = max(low - placed[0], 0) or min(high - placed[-1], 0)
        placed = [value + shift for value in placed]
    if placed and placed[0] < low - 1e-9:
        step = (high - low) / max(len(placed) - 1, 1)
        placed = [low + index * step for index in range(len(placed))]
    result = [0.0] * len(wanted)
    for position, index in zip(placed, order, strict=True):
        result[index] = position
    return result


def _plot_area(figure: Any, inches: tuple[float, float], margins: tuple[float, ...]) -> Any:
    """Axes of a figure of that size with left, right, bottom, top margins in inches."""
    width, height = inches
    left, right, bottom, top = margins
    figure.set_size_inches(width, height)
    return figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    )


def _name_axes(axes: Any, x: Axis, y: Axis | None) -> None:
    axes.set_xlabel(_axis_text(x))
    if x.percent:
        axes.xaxis.set_major_formatter(lambda value, _: f"{value * 100:+.3g} %".replace("-", "−"))
    if y is not None:
        axes.set_ylabel(_axis_text(y))


def _axis_text(axis: Axis) -> str:
    better = {"lower": "  (lower is better)", "higher": "  (higher is better)", "": ""}
    return axis.title + better[axis.better]


def colour(mark: Mark) -> str:
    """The variant's colour, the same in every figure."""
    return PALETTE[mark.colour]


def draw_scatter(figure: Any, drawing: Scatter) -> None:
    """Points with intervals; names in a column at the right, each joined to its point."""
    points = drawing.points
    height = max(4.2, 0.17 * len(points) + 1.2)
    names = shorten([point.label for point in points])
    right = 0.35 + 0.075 * max(len(name) for name in names.values())
    axes = _plot_area(figure, (8.0, height), (0.75, right, 0.55, 0.2))
    for point in points:
        if point.low is not None and point.high is not None:
            axes.plot(
                [point.x] * 2,
                [point.low, point.high],
                color=colour(point.mark),
                lw=1.1,
                alpha=0.55,
                solid_capstyle="butt",
            )
        axes.plot(
            [point.x],
            [point.y],
            marker=MARKERS[point.mark.marker],
            ms=7,
            ls="",
            color=colour(point.mark),
            mec=PAPER if point.trained else colour(point.mark),
            mfc=colour(point.mark) if point.trained else PAPER,
            mew=1.1,
            zorder=4,
        )
    front = sorted((point.x, point.y) for point in points if point.on_front)
    if len(front) > 1:
        axes.plot(*zip(*front, strict=True), color=FAINT, lw=1.0, ls=(0, (4, 2)), zorder=2)
    axes.margins(x=0.08, y=0.08)
    low, high = axes.get_xlim()
    if drawing.limit is not None and drawing.limit < high + (high - low):
        axes.axvline(drawing.limit, color=INK, lw=1.0)
        axes.set_xlim(min(low, drawing.limit), max(high, drawing.limit * 1.02))
    _name_axes(axes, drawing.x, drawing.y)
    _name_points(axes, [(p.x, p.y, names[p.label], colour(p.mark)) for p in points], height)


def _name_points(axes: Any, points: Sequence[tuple[float, float, str, str]], height: float) -> None:
    """Names at the right edge in the order of y, with a thin line to each point."""
    to_axes = axes.transAxes.inverted()
    spots = [to_axes.transform(axes.transData.transform((x, y))) for x, y, _, _ in points]
    gap = 0.165 / (height - 0.75)
    heights = spread([spot[1] for spot in spots], gap, 0.0, 1.0)
    for spot, at, (_, _, name, shade) in zip(spots, heights, points, strict=True):
        axes.annotate(
            name,
            xy=tuple(spot),
            xytext=(1.02, at),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            ha="left",
            fontsize=8.5,
            color=INK,
            arrowprops={
                "arrowstyle": "-",
                "color": shade,
                "lw": 0.6,
                "alpha": 0.6,
                "shrinkA": 1,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
        )


def draw_forest(figure: Any, drawing: Forest) -> None:
    """One line per variant: name, interval, verdict; the margin is shaded around zero."""
    rows = drawing.rows
    names = shorten([row.label for row in rows])
    left = 0.3 + 0.075 * max(len(name) for name in names.values())
    height = 0.26 * len(rows) + 0.95
    axes = _plot_area(figure, (8.0, height), (left, 1.0, 0.55, 0.25))
    axes.axvspan(-drawing.margin, drawing.margin, color=SHADE, lw=0, zorder=0)
    axes.axvline(0, color=INK, lw=0.9, zorder=1)
    for place, row in enumerate(rows):
        axes.plot(
            [row.low, row.high],
            [place] * 2,
            color=colour(row.mark),
            lw=2,
            solid_capstyle="butt",
            zorder=3,
        )
        axes.plot(
            [row.estimate],
            [place],
            marker=MARKERS[row.mark.marker],
            ms=6.5,
            ls="",
            color=colour(row.mark),
            mec=PAPER,
            mew=0.9,
            zorder=4,
        )
        axes.annotate(
            row.verdict,
            xy=(1.02, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8.5,
            color=INK if row.verdict in ("better", "worse") else FAINT,
        )
    axes.set_yticks(range(len(rows)), [names[row.label] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    _name_axes(axes, drawing.x, None)
