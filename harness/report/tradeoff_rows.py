"""Tradeoff rows: of many variants the quality and every cost, one row a variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness import numbers
from harness.report.blocks import Figure
from harness.report.cells import difference_text, show_difference, show_limit
from harness.report.evidence import Evidence
from harness.report.families import family_key, family_mark
from harness.report.figures.forest import Estimate, Forest, ForestRow, Panel, cut_at, panel_title
from harness.report.frontier import Cost, on_front
from harness.report.recommend import recommend
from harness.report.rows import Row
from harness.report.scoring import Scoring

MOST_IN_A_PLANE = 12  # of fourteen, two already cover each other
MOST_ROWS = 40
Known = Sequence[tuple[Row, float]]


def tradeoff_rows(evidence: Evidence, main: Scoring, drawn: Mapping[Cost, Known]) -> Figure | None:
    """The figure of many variants, best first; None of few, or where nothing was compared."""
    rows = list({row.label: row for known in drawn.values() for row, _ in known}.values())
    reference = evidence.reference
    if len(rows) <= MOST_IN_A_PLANE or not main.differences or reference not in main.values:
        return None
    kept = _kept(evidence, rows)
    costs = {cost: {row.label: x for row, x in known} for cost, known in drawn.items()}
    fronts = {cost: on_front(main, known) for cost, known in drawn.items()}
    found = recommend(evidence)
    made = tuple(
        ForestRow(
            row.label,
            family_mark(row.plan),
            (
                _quality(main, row.label, reference),
                *(_cost(costs[cost], row.label, fronts[cost]) for cost in drawn),
            ),
            _said(main, row.label, costs),
            ringed=found is not None and row is found.row,
        )
        for row in kept
    )
    cut = cut_at([row.estimates[0] for row in made])
    panels = (
        _quality_panel(main, reference, cut),
        *(_cost_panel(evidence, cost) for cost in drawn),
    )
    of_all = "" if len(kept) == len(rows) else f" of {len(rows)}"
    margin = show_limit(main, main.scale.margin)
    caption = (
        f"{main.key.title} of {len(kept)}{of_all} variants as difference from {reference} "
        f"({numbers.number(main.values[reference].value)}), best first, with 95 % intervals where "
        f"seeds and items allow one, and what each costs. The shaded band is the margin of "
        f"{margin}; where values lie far beyond it, the scale is even within it and logarithmic "
        "outside"
    )
    key = family_key(row.plan for row in kept)
    return Figure("quality-costs", caption, _told(main, fronts, costs), Forest(panels, made, key))


def _kept(evidence: Evidence, rows: Sequence[Row]) -> list[Row]:
    """The best rows, best first, with the reference and the recommended one among them."""
    found = recommend(evidence)
    chosen = None if found is None or found.row is None else found.row.label
    ordered = [row for row in evidence.ranked if row in rows]
    always = {chosen, evidence.reference}
    most = MOST_ROWS - sum(row.label in always for row in ordered[MOST_ROWS:])
    return [row for place, row in enumerate(ordered) if place < most or row.label in always]


def _unit(main: Scoring) -> int:
    """Relative changes and shares are drawn in hundredths."""
    return 100 if main.scale.relative or main.scale.share else 1


def _quality(main: Scoring, label: str, reference: str) -> Estimate | None:
    found, unit = main.differences.get(label), _unit(main)
    if label == reference:
        return Estimate(0.0, text=f"reference, {numbers.number(main.values[label].value)}")
    if found is None:
        return None
    text = _bare(main, found.estimate)
    if found.low is None or found.high is None:
        return Estimate(unit * found.estimate, text=text)
    text += f" [{_bare(main, found.low)}, {_bare(main, found.high)}]"
    return Estimate(unit * found.estimate, unit * found.low, unit * found.high, text)


def _bare(main: Scoring, value: float) -> str:
    """A difference without its unit, which stands over the panel."""
    digits = 2 if abs(value) < 1 else 0  # of relative changes: 100 % and more
    return show_difference(main, value, digits=digits).removesuffix(" %").removesuffix(" points")


def _quality_panel(main: Scoring, reference: str, cut: float | None) -> Panel:
    unit = "%" if main.scale.relative else "points" if main.scale.share else main.scale.unit
    title = panel_title(f"{main.key.title} against {reference}", unit, main.scale.direction, cut)
    return Panel(title, 3, margin=_unit(main) * main.scale.margin, highest=cut)


def _cost_panel(evidence: Evidence, cost: Cost) -> Panel:
    limit = evidence.request.budget_memory_bytes if cost.name == "memory" else None
    if limit is None:
        return Panel(cost.title, bars=True)
    title = f"{cost.title}; line: your limit, {numbers.size(limit)}"
    return Panel(title, bars=True, limit=limit / cost.scale)


def _cost(known: Mapping[str, float], label: str, front: set[str]) -> Estimate | None:
    value = known.get(label)
    if value is None:
        return None
    return Estimate(value, text=numbers.number(value, digits=3), strong=label in front)


def _said(main: Scoring, label: str, costs: Mapping[Cost, Mapping[str, float]]) -> str:
    parts = [cost.say(known[label]) for cost, known in costs.items() if label in known]
    return f"{label}: {'; '.join([difference_said(main, label), *parts])}"


def difference_said(main: Scoring, label: str) -> str:
    """A row's value, and its difference from the reference where there is one."""
    text = f"{main.key.title} {numbers.number(main.values[label].value)}"
    found = main.differences.get(label)
    return text if found is None else f"{text}, {difference_text(main, found)}"


def _told(
    main: Scoring,
    fronts: Mapping[Cost, set[str]],
    costs: Mapping[Cost, Mapping[str, float]],
) -> str:
    """Who is on the front of quality against each cost."""
    parts = []
    for cost, known in costs.items():
        best = [label for label in main.ordered() if label in fronts[cost]]
        named = ", ".join(
            f"{label} ({numbers.number(main.values[label].value)} at {cost.say(known[label])})"
            for label in best[:8]
        )
        parts.append(f"on the front against {cost.title}: {named}")
    return f"{main.key.title} and costs of many variants, one row each; {'; '.join(parts)}"
