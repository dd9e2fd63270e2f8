"""Spark: a small chart of one variant's losses, written as SVG without a plotting library."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 420, 150
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 24
MOST_POINTS = 150


@dataclass(frozen=True)
class SparkLine:
    """One curve of a small chart: points (x, y) in order, its colour, and what it is."""

    points: tuple[tuple[float, float], ...]
    colour: str
    name: str
    faint: bool = False


def spark(threads: Sequence[SparkLine], said: str) -> str:
    """Curves over a common x axis, ends and extremes labelled; at least one needs two points."""
    every = [point for thread in threads for point in thread.points]
    left, right = min(x for x, _ in every), max(x for x, _ in every)
    low, high = min(y for _, y in every), max(y for _, y in every)

    def place(point: tuple[float, float]) -> str:
        x = LEFT + (point[0] - left) / ((right - left) or 1) * (WIDTH - LEFT - RIGHT)
        y = TOP + (high - point[1]) / ((high - low) or 1) * (HEIGHT - TOP - BOTTOM)
        return f"{x:.1f},{y:.1f}"

    floor = HEIGHT - BOTTOM
    parts = [
        f'<svg class="spark" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{html.escape(said)}</title>",
        f'<path d="M{LEFT} {TOP}V{floor}H{WIDTH - RIGHT}" class="frame"/>',
        _text(LEFT - 5, TOP + 9, f"{high:.3g}", "end"),
        _text(LEFT - 5, floor, f"{low:.3g}", "end"),
        _text(LEFT, HEIGHT - 8, f"step {left:g}", "start"),
        _text(WIDTH - RIGHT, HEIGHT - 8, f"{right:g}", "end"),
    ]
    for thread in sorted(threads, key=lambda thread: not thread.faint):
        points = " ".join(place(point) for point in _thinned(thread.points))
        look = 'class="faint"' if thread.faint else f'stroke="{thread.colour}"'
        title = f"<title>{html.escape(thread.name)}</title>"
        parts.append(f'<polyline points="{points}" {look}>{title}</polyline>')
    return "".join([*parts, "</svg>"])


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most some points, evenly, the last one included."""
    every = max(1, -(-len(points) // MOST_POINTS))
    kept = list(points[::every])
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]
