"""Tradeoff: quality against what it costs, and the Pareto front."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.report import numbers
from harness.report.blocks import Block, Figure, Section, prose
from harness.report.cells import difference_text
from harness.report.evidence import Evidence
from harness.report.figures.canvas import Axis
from harness.report.figures.scatter import Point, Scatter
from harness.report.memory import MemoryOrder, memory_order
from harness.report.recommend import recommend
from harness.report.rows import MEMORY_KINDS, Row, method_of
from harness.report.scoring import Scoring

Cost = tuple[str, str, Callable[[Row], float | None], Callable[[float | None], str]]


def tradeoff_section(evidence: Evidence) -> Section | None:
    """Quality against peak memory, time and, where it was measured, energy."""
    if evidence.main is None:
        return None
    times = [row.phase_seconds("train") or 0 for row in evidence.rows]
    unit, short, seconds = ("minutes", "min", 60) if max(times) > 180 else ("seconds", "s", 1)
    costs: tuple[Cost, ...] = (
        (
            "memory",
            f"peak memory, GiB ({MEMORY_KINDS[evidence.memory_kind]})",
            lambda row: _scaled(row.peak_bytes(evidence.memory_kind), 2**30),
            lambda x: f"{numbers.number(x, digits=3)} GiB",
        ),
        (
            "time",
            f"training time, {unit}",
            lambda row: _scaled(row.phase_seconds("train"), seconds),
            lambda x: f"{numbers.number(x, digits=3)} {short}",
        ),
        (
            "energy",
            "training energy, Wh",
            lambda row: _scaled(row.energy_joules(), 3600) if row.plan.trains else None,
            lambda x: f"{numbers.number(x, digits=3)} Wh",
        ),
    )
    blocks: list[Block] = []
    for cost in costs:
        figure = _figure(evidence, evidence.main, cost)
        if figure is not None:
            blocks.append(figure)
    if not blocks:
        return None
    note = prose(
        "The dashed line is the Pareto front: no other variant is better in both respects "
        "than one on it. Bars are 95 % intervals of the difference from "
        f"{evidence.reference}; with one training there is none. Costs are medians over the "
        "runs. Two peaks that differ by no more than repeated runs of one variant are a tie; "
        "on a CPU the predicted memory decides it. The recommended variant is ringed (◉). "
        f"{looks(evidence.rows)}"
    )
    return Section("tradeoff", "Quality against cost", (note, *blocks))


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _figure(evidence: Evidence, main: Scoring, cost: Cost) -> Figure | None:
    name, title, read, say = cost
    known = [
        (row, x)
        for row in evidence.ranked
        if row.label in main.values and (x := read(row)) is not None
    ]
    if not known:
        return None
    front = _front(evidence, main, known, name)
    found = recommend(evidence)
    chosen = None if found is None else found.row
    points = tuple(
        Point(
            label=row.label,
            mark=row.mark,
            x=x,
            y=main.values[row.label].value,
            low=main.compared_interval(row.label)[0],
            high=main.compared_interval(row.label)[1],
            on_front=index in front,
            recommended=row is chosen,
            said=f"{row.label}: {difference_said(main, row.label)}; {say(x)}",
        )
        for index, (row, x) in enumerate(known)
    )
    limit = evidence.request.budget_memory_bytes if name == "memory" else None
    drawing = Scatter(
        x=Axis(title, "lower"),
        y=Axis(f"{main.key.title}", "lower" if main.scale.direction == "lower" else "higher"),
        points=points,
        limit=_scaled(limit, 2**30),
        limit_label=f"your limit, {numbers.size(limit)}",
    )
    on_front = [point for point in points if point.on_front]
    alt = f"{main.key.title} against {title}. On the front: " + ", ".join(
        f"{point.label} ({numbers.number(point.y)} at {say(point.x)})" for point in on_front[:8]
    )
    return Figure(f"quality-{name}", f"{main.key.title} against {title}", alt, drawing)


def difference_said(main: Scoring, label: str) -> str:
    """A row's value, and its difference from the reference where there is one."""
    text = f"{main.key.title} {numbers.number(main.values[label].value)}"
    found = main.differences.get(label)
    return text if found is None else f"{text}, {difference_text(main, found)}"


def looks(rows: Sequence[Row]) -> str:
    """What the shapes and fills of markers say, of those that are there."""
    shapes = {"○": "lora", "□": "full", "△": "dora", "◇": "untrained", "▽": "rslora", "✚": ""}
    there = {method_of(row.plan) for row in rows}
    named = [f"{sign} {name}" for sign, name in shapes.items() if name in there]
    if there - set(shapes.values()):
        named.append("✚ other methods")
    return (
        f"Shapes: {', '.join(named)}. Filled: 16-bit weights, half filled: 8 bits, hollow: fewer."
    )


def _front(
    evidence: Evidence, main: Scoring, known: Sequence[tuple[Row, float]], name: str
) -> set[int]:
    """The Pareto front; where repeated runs do not tell memory apart, ties are broken."""
    quality = [main.values[row.label].value * main.scale.sign for row, _ in known]
    if name != "memory":
        return pareto_front(list(zip([x for _, x in known], quality, strict=True)))
    order = memory_order(evidence.rows, evidence.memory_kind)
    front = set()
    for index, (row, _) in enumerate(known):
        beaten = any(
            _beats(order, (other, quality[place]), (row, quality[index]))
            for place, (other, _) in enumerate(known)
            if place != index
        )
        if not beaten:
            front.add(index)
    return front


def _beats(order: MemoryOrder, one: tuple[Row, float], other: tuple[Row, float]) -> bool:
    """Whether one row is at least as good in both respects and better in one."""
    less, more = order.less(one[0], other[0]), order.less(other[0], one[0])
    return (less and one[1] <= other[1]) or (not more and one[1] < other[1])


def pareto_front(points: Sequence[tuple[float, float]]) -> set[int]:
    """Indices of points that no other point beats; both coordinates are better when lower."""
    front = set()
    for index, (x, y) in enumerate(points):
        beaten = any(
            (a <= x and b < y) or (a < x and b <= y)
            for other, (a, b) in enumerate(points)
            if other != index
        )
        if not beaten:
            front.add(index)
    return front
