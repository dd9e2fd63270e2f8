"""Tradeoff: quality against what it costs, and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness import numbers
from harness.report.axes import STEP_TIME, axes_choice
from harness.report.blocks import Figure, Section, prose
from harness.report.cells import difference_text
from harness.report.evidence import Evidence
from harness.report.figures.canvas import Axis
from harness.report.figures.scatter import Point, Scatter
from harness.report.machines import apart_said
from harness.report.recommend import recommend
from harness.report.rows import MEMORY_KINDS, Row
from harness.report.scoring import Scoring
from harness.report.settings import method_of
from harness.report.ties import (
    CostOrder,
    counts_steps,
    energy_order,
    memory_order,
    time_order,
)

NAMED = 5


@dataclass(frozen=True)
class Cost:
    """What quality is set against: its title, the unit that is drawn, and the order of rows."""

    name: str
    title: str
    unit: str
    scale: float
    order: CostOrder

    def say(self, value: float | None) -> str:
        """A drawn value with its unit."""
        return f"{numbers.number(value, digits=3)} {self.unit}"


def tradeoff_section(evidence: Evidence) -> Section | None:
    """Quality against peak memory, time and, where it was measured, energy."""
    if evidence.main is None:
        return None
    by_time = time_order(evidence.rows)
    times = [by_time.read(row) or 0 for row in evidence.rows]
    unit, short, seconds = ("minutes", "min", 60) if max(times) > 180 else ("seconds", "s", 1)
    memory = memory_order(evidence.rows, evidence.memory_kind)
    kind = MEMORY_KINDS[evidence.memory_kind]
    timed = STEP_TIME if counts_steps(evidence.rows) else "training time"
    costs: tuple[Cost, ...] = (
        Cost("memory", f"peak memory, GiB ({kind})", "GiB", 2**30, memory),
        Cost("time", f"{timed}, {unit}", short, seconds, by_time),
        Cost("energy", "training energy, Wh", "Wh", 3600, energy_order(evidence.rows)),
    )
    found = [(cost, _figure(evidence, evidence.main, cost)) for cost in costs]
    figures = [figure for _, figure in found if figure is not None]
    drawn = [cost for cost, figure in found if figure is not None]
    if not figures:
        return None
    chosen = recommend(evidence)
    first = drawn[0].title.partition(",")[0]
    axes = axes_choice(evidence, None if chosen is None else chosen.row, first)
    figures[0] = replace(figures[0], axes=axes)
    note = prose(
        "The dashed line is the Pareto front: no other variant is better in one respect and "
        "at least as good in the other, by the values that are drawn. Bars are 95 % intervals "
        f"of the difference from {evidence.reference}, where seeds and items allow one. Costs "
        f"are medians over the runs{_once(drawn)}. Costs that differ by less than those of "
        f"repeated runs of one variant tell nothing apart: {_ties(drawn)}. The recommended "
        f"variant is ringed (◉). {looks(evidence.rows)}{_elsewhere(evidence)}"
    )
    return Section("tradeoff", "Quality against cost", (note, *figures))


def _figure(evidence: Evidence, main: Scoring, cost: Cost) -> Figure | None:
    known = [
        (row, x / cost.scale)
        for row in evidence.ranked
        if row.label in main.values and row.label in evidence.costed
        if (x := cost.order.read(row)) is not None
    ]
    if len({x for _, x in known}) < 2:
        return None  # a cost that tells no rows apart
    front = _front([(main.values[row.label].value * main.scale.sign, x) for row, x in known])
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
            said=f"{row.label}: {difference_said(main, row.label)}; {cost.say(x)}",
        )
        for index, (row, x) in enumerate(known)
    )
    limit = evidence.request.budget_memory_bytes if cost.name == "memory" else None
    drawing = Scatter(
        x=Axis(cost.title, "lower"),
        y=Axis(f"{main.key.title}", "lower" if main.scale.direction == "lower" else "higher"),
        points=points,
        limit=None if limit is None else limit / cost.scale,
        limit_label=f"your limit, {numbers.size(limit)}",
    )
    on_front = [point for point in points if point.on_front]
    alt = f"{main.key.title} against {cost.title}. On the front: " + ", ".join(
        f"{point.label} ({numbers.number(point.y)} at {cost.say(point.x)})"
        for point in on_front[:8]
    )
    return Figure(f"quality-{cost.name}", f"{main.key.title} against {cost.title}", alt, drawing)


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


def _elsewhere(evidence: Evidence) -> str:
    """Which rows are not drawn, since they ran on another device than the others."""
    away = [row.label for row in evidence.ranked if row.label not in evidence.costed]
    if not away:
        return ""
    return f" {apart_said(evidence.rows)} Not drawn: {numbers.some_of(away, NAMED)}."


def _once(costs: Sequence[Cost]) -> str:
    """That time in steps is without what happens once in a run; empty where it is not drawn."""
    if not any(cost.title.startswith(STEP_TIME) for cost in costs):
        return ""
    return ", and time in steps is without compiling and set-up, which happen once in a run"


def _ties(costs: Sequence[Cost]) -> str:
    """How close costs are that tell nothing apart."""
    said = [
        f"{cost.name} up to {numbers.percent(cost.order.alike, digits=0)}"
        + (" (a recommendation then goes by the predicted memory)" if cost.order.breakers else "")
        for cost in costs
    ]
    return ", ".join(said)


def _front(points: Sequence[tuple[float, float]]) -> set[int]:
    """Indices of the points that no other one beats; a point is what is lost and what it costs."""
    return {
        index
        for index, (lost, cost) in enumerate(points)
        if not any(
            other[0] <= lost and other[1] <= cost and other != (lost, cost) for other in points
        )
    }
