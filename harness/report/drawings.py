"""Drawings: what each kind of figure shows, as plain data; harness.report.figures draws them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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


@dataclass(frozen=True)
class Point:
    """A variant in the plane; ``low`` to ``high`` is the interval of y."""

    label: str
    mark: Mark
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    on_front: bool = False
    trained: bool = True


@dataclass(frozen=True)
class Scatter:
    """Quality against a cost; points of the Pareto front are joined."""

    x: Axis
    y: Axis
    points: tuple[Point, ...]
    limit: float | None = None


@dataclass(frozen=True)
class ForestRow:
    """One difference from the reference with its interval."""

    label: str
    mark: Mark
    estimate: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class Forest:
    """Differences from the reference, zero in the middle, the margin shaded."""

    x: Axis
    rows: tuple[ForestRow, ...]
    margin: float


@dataclass(frozen=True)
class Line:
    """A curve with an optional band."""

    label: str
    mark: Mark
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    dashed: bool = False


@dataclass(frozen=True)
class Curves:
    """Curves over a common x axis, labelled at their right end."""

    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    log_x: bool = False


@dataclass(frozen=True)
class Bar:
    """A horizontal bar of stacked or neighbouring segments, in the order of the legend."""

    label: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Bars:
    """Horizontal bars per variant; ``parts`` names the segments.

    ``stacked`` bars add up; otherwise each part is its own dot on the row's line (measured beside
    predicted).
    """

    x: Axis
    parts: tuple[str, ...]
    bars: tuple[Bar, ...]
    stacked: bool = True


@dataclass(frozen=True)
class Histogram:
    """Counts by upper bound."""

    x: Axis
    y: Axis
    bounds: tuple[int, ...]
    counts: tuple[int, ...]


Drawing = Scatter | Forest | Curves | Bars | Histogram
