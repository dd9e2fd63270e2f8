"""Tradeoff: quality against what it costs, and the Pareto front."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness import numbers
from harness.report.axes import STEP_TIME, axes_choice
from harness.report.blocks import Figure, Section, prose
from harness.report.evidence import Evidence
from harness.report.figures.canvas import Axis
from harness.report.figures.scatter import Point, Scatter
from harness.report.frontier import Cost, costed_rows, costs_of, on_front
from harness.report.machines import apart_said
from harness.report.recommend import recommend
from harness.report.rows import Row
from harness.report.scoring import Scoring
from harness.report.settings import method_of
from harness.report.tradeoff_rows import difference_said, tradeoff_rows

NAMED = 5


def tradeoff_section(evidence: Evidence) -> Section | None:
    """Quality against peak memory, time and, where it was measured, energy.

    Few variants are points of a plane for each cost, many are rows of one figure.
    """
    main = evidence.main
    if main is None:
        return None
    found = {cost: costed_rows(evidence, main, cost) for cost in costs_of(evidence)}
    drawn = {cost: known for cost, known in found.items() if known}
    if not drawn:
        return None
    rows = tradeoff_rows(evidence, main, drawn)
    figures = [rows] if rows else [_plane(evidence, main, *one) for one in drawn.items()]
    chosen = recommend(evidence)
    first = next(iter(drawn)).title.partition(",")[0]
    axes = axes_choice(evidence, None if chosen is None else chosen.row, first)
    figures[0] = replace(figures[0], axes=axes)
    seen = _rows_read() if rows else _plane_read(evidence)
    note = prose(
        f"{seen} Costs are medians over the runs{_once(drawn)}. Costs that differ by less than "
        f"those of repeated runs of one variant tell nothing apart: {_ties(drawn)}. The "
        f"recommended variant is ringed (◉).{'' if rows else ' ' + looks(evidence.rows)}"
        f"{_elsewhere(evidence)}"
    )
    return Section("tradeoff", "Quality against cost", (note, *figures))


def _plane_read(evidence: Evidence) -> str:
    return (
        "The dashed line is the Pareto front: no other variant is better in one respect and "
        "at least as good in the other, by the values that are drawn. Bars are 95 % intervals "
        f"of the difference from {evidence.reference}, where seeds and items allow one."
    )


def _rows_read() -> str:
    return (
        "The best variant is on top. A cost in bold is less than that of every variant above, so "
        "that variant is on the Pareto front: no other one is better in quality and costs no more."
    )


def _plane(
    evidence: Evidence, main: Scoring, cost: Cost, known: Sequence[tuple[Row, float]]
) -> Figure:
    front = on_front(main, known)
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
            on_front=row.label in front,
            recommended=row is chosen,
            said=f"{row.label}: {difference_said(main, row.label)}; {cost.say(x)}",
        )
        for row, x in known
    )
    limit = evidence.request.budget_memory_bytes if cost.name == "memory" else None
    drawing = Scatter(
        x=Axis(cost.title, "lower"),
        y=Axis(f"{main.key.title}", "lower" if main.scale.direction == "lower" else "higher"),
        points=points,
        limit=None if limit is None else limit / cost.scale,
        limit_label=f"your limit, {numbers.size(limit)}",
    )
    best = [point for point in points if point.on_front]
    alt = f"{main.key.title} against {cost.title}. On the front: " + ", ".join(
        f"{point.label} ({numbers.number(point.y)} at {cost.say(point.x)})" for point in best[:8]
    )
    return Figure(f"quality-{cost.name}", f"{main.key.title} against {cost.title}", alt, drawing)


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


def _elsewhere(evidence: Evidence) -> str:
    """Which rows are not drawn, since they ran on another device than the others."""
    away = [row.label for row in evidence.ranked if row.label not in evidence.costed]
    if not away:
        return ""
    return f" {apart_said(evidence.rows)} Not drawn: {numbers.some_of(away, NAMED)}."


def _once(costs: Iterable[Cost]) -> str:
    """That time in steps is without what happens once in a run; empty where it is not drawn."""
    if not any(cost.title.startswith(STEP_TIME) for cost in costs):
        return ""
    return ", and time in steps is without compiling and set-up, which happen once in a run"


def _ties(costs: Iterable[Cost]) -> str:
    """How close costs are that tell nothing apart."""
    said = [
        f"{cost.name} up to {numbers.percent(cost.order.alike, digits=0)}"
        + (" (a recommendation then goes by the predicted memory)" if cost.order.breakers else "")
        for cost in costs
    ]
    return ", ".join(said)
