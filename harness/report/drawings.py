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
    """A variant in the plane; ``low`` to ``high`` is an interval of y."""

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
    """Quality against a cost; points of the Pareto front are joined; ``limit`` is the user's."""

    x: Axis
    y: Axis
    points: tuple[Point, ...]
    limit: float | None = None
    limit_label: str = ""


@dataclass(frozen=True)
class ForestRow:
    """One difference from the reference with its interval, where there is one."""

    label: str
    mark: Mark
    estimate: float
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True)
class Forest:
    """Differences from the reference, zero in the middle, the margin shaded."""

    x: Axis
    rows: tuple[ForestRow, ...]
    margin: float


@dataclass(frozen=True)
class Line:
    """A curve; ``low`` to ``high`` is a band, or error bars where points are marked."""

    label: str
    mark: Mark
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Curves:
    """Curves over a common x axis, named at their right end; ``faint`` ones stay unnamed."""

    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    faint: tuple[Line, ...] = ()
    marked: bool = False
    doubling: bool = False


@dataclass(frozen=True)
class Bar:
    """One variant's parts, in the order of the drawing's ``parts``; None is not measured."""

    label: str
    mark: Mark
    values: tuple[float | None, ...]
    beside: tuple[float | None, ...] = ()
    total: str = ""


@dataclass(frozen=True)
class Stacks:
    """Horizontal stacked bars that add up to a total written at their end."""

    x: Axis
    parts: tuple[str, ...]
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Panels:
    """A panel per part over common rows: measured values filled, predicted ones hollow."""

    x: Axis
    parts: tuple[str, ...]
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Histogram:
    """Counts by upper bound; ``cuts`` are bounds worth a line, with their labels."""

    x: Axis
    y: Axis
    bounds: tuple[int, ...]
    counts: tuple[int, ...]
    cuts: tuple[tuple[int, str], ...] = ()


Drawing = Scatter | Forest | Curves | Stacks | Panels | Histogram
