"""Quality: the figure of held-out perplexity against the bytes of all weights."""

from __future__ import annotations

from collections.abc import Mapping

from harness import numbers
from harness.report.blocks import Figure
from harness.report.claims.overview import MARGIN, Overview, change
from harness.report.figures.canvas import Axis
from harness.report.figures.forest import Estimate, Forest, ForestRow, Panel, cut_at, panel_title
from harness.report.figures.scatter import Point, Scatter
from harness.report.ranking import packed_base

NAME = "findings-bytes"
MIB = 2**20


def bytes_figure(overview: Overview) -> Figure | None:
    """A plane of few variants, rows of many; None where bytes tell no variants apart."""
    known = {
        name: size
        for name in overview.quality.ordered()
        if (size := overview.rows[name].weight_bytes) is not None
    }
    if len(set(known.values())) < 2:
        return None
    return _forest(overview, known) if overview.many else _plane(overview, known)


def _plane(overview: Overview, known: Mapping[str, int]) -> Figure:
    quality = overview.quality
    points = tuple(
        Point(
            label=name,
            mark=overview.rows[name].mark,
            x=size / MIB,
            y=quality.values[name].value,
            low=quality.compared_interval(name)[0],
            high=quality.compared_interval(name)[1],
            said=_said(overview, name, size),
        )
        for name, size in sorted(known.items())
    )
    best = min(points, key=lambda point: point.y)
    return Figure(
        NAME,
        "Held-out perplexity against the bytes of all weights, at the best rate where it was "
        f"run; bars are 95 % intervals of the difference from {overview.reference}",
        f"Held-out perplexity of {len(points)} variants against the bytes of their weights; "
        f"lowest: {best.label} ({numbers.number(best.y)})",
        Scatter(Axis("weights, MiB", "lower"), Axis("held-out perplexity", "lower"), points),
    )


def _said(overview: Overview, name: str, size: int) -> str:
    value = numbers.number(overview.quality.values[name].value)
    return f"{name}: perplexity {value}, {numbers.size(size)}"


def _forest(overview: Overview, known: Mapping[str, int]) -> Figure:
    """One row a variant, best first: the difference from the reference, and the bytes."""
    values = overview.quality.values
    base = numbers.number(values[overview.reference].value)
    least = _smaller_than_all_above(known)
    rows = []
    for name, size in known.items():
        found = change(overview.quality, name, overview.reference)
        if name == overview.reference:
            found = Estimate(0.0, text=f"reference, {base}")
        small = Estimate(size / MIB, text=f"{size / MIB:.0f}", strong=name in least)
        said = f"{_said(overview, name, size)}, {found.text if found else 'not compared'}"
        rows.append(ForestRow(name, overview.rows[name].mark, (found, small), said))
    margin = 100 * MARGIN
    cut = cut_at([row.estimates[0] for row in rows])
    title = panel_title(f"perplexity against {overview.reference}", "%", "lower", cut)
    panels = (
        Panel(title, 3, margin=margin, highest=cut),
        Panel("weights, MiB", bars=True),
    )
    caption = (
        f"Held-out perplexity of {len(rows)} variants as difference from {overview.reference} "
        f"({base}), best first, each at its best rate where that was run, with 95 % intervals; "
        "beside it the bytes of all weights. The shaded band is the margin of "
        f"{margin:g} %: the scale is even within it and logarithmic outside. Bold bytes: fewer "
        "than those of every variant above. Seed noise is estimated from all variants together, "
        "so an interval may differ a little from that of a claim"
    )
    packed = packed_base(overview.rows[name].plan for name in known).removesuffix(".")
    return Figure(
        NAME,
        f"{caption}. {packed}" if packed else caption,
        _told(overview, rows, least),
        Forest(panels, tuple(rows), overview.key(list(known))),
    )


def _smaller_than_all_above(known: Mapping[str, int]) -> set[str]:
    """Variants with fewer bytes than all that score better."""
    found, least = set(), None
    for name, size in known.items():
        if least is None or size < least:
            found.add(name)
            least = size
    return found


def _told(overview: Overview, rows: list[ForestRow], least: set[str]) -> str:
    """Which variants lie within the margin, which beyond, and which are the smallest so far."""
    within, near, beyond = [], [], []
    for row in rows:
        found = row.estimates[0]
        if found is None or found.low is None or found.high is None:
            continue
        text = f"{row.label} {found.text.partition(' ')[0]} %"
        if found.low > -100 * MARGIN and found.high < 100 * MARGIN:
            within.append(text)
        elif found.low > 100 * MARGIN:
            beyond.append(text)
        else:
            near.append(text)
    best = ", ".join(
        f"{row.label} ({numbers.size(overview.rows[row.label].weight_bytes)})"
        for row in rows
        if row.label in least
    )
    groups = {
        f"interval within {100 * MARGIN:g} %": within,
        "interval across the margin": near,
        f"worse by more than {100 * MARGIN:g} %": beyond,
    }
    listed = "; ".join(f"{title}: {', '.join(found)}" for title, found in groups.items() if found)
    return (
        f"Held-out perplexity of {len(rows)} variants against {overview.reference}, best first; "
        f"{listed}. Fewer bytes than all better ones: {best}"
    )
