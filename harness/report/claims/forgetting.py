"""Forgetting: the figure of what training changed on unrelated text and on replies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from harness import numbers
from harness.report.blocks import Figure
from harness.report.claims.overview import (
    MARGIN,
    QUALITY,
    Overview,
    change,
    signed_percent,
)
from harness.report.figures.canvas import Axis
from harness.report.figures.forest import Estimate, Forest, ForestRow, Panel, cut_at, panel_title
from harness.report.figures.scatter import Point, Scatter
from harness.report.gains import mean_score
from harness.report.pairing import ScoreKey
from harness.report.rows import Row
from harness.report.scoring import make_scoring

FORGETTING = ScoreKey("wikitext2", "bits_per_byte", "training")
KEYS = (QUALITY, FORGETTING)
NAME = "findings-forgetting"
SAME = 1e-3  # relative: full fine-tuning scores its base in float32, others in bfloat16


@dataclass(frozen=True)
class _Change:
    """What training changed, in per cent of the untrained base's: lower is better in both."""

    replies: Estimate
    unrelated: Estimate


def forgetting_figure(overview: Overview) -> Figure | None:
    """A plane of few variants, rows of many; None where fewer than two can be shown."""
    changes = dict(sorted(_changes(overview.rows)))
    if len(changes) < 2:
        return None
    return _forest(overview, changes) if overview.many else _plane(overview, changes)


def _changes(rows: Mapping[str, Row]) -> Iterator[tuple[str, _Change]]:
    """Each trained variant against the untrained weights that it started from.

    Where a variant of that base was scored too, by the same items, and so with intervals;
    otherwise against what its own runs scored before training.
    """
    groups: dict[str, list[str]] = {}
    for name, row in rows.items():
        if not row.plan.trains:
            continue
        base = _base_of(row, rows)
        if base is not None:
            groups.setdefault(base, []).append(name)
        elif (found := _against_itself(row)) is not None:
            yield name, found
    for base, names in groups.items():
        group = [rows[name] for name in (base, *names)]
        scorings = [make_scoring(group, key, base, MARGIN) for key in KEYS]
        for name in names:
            replies, unrelated = (change(scoring, name, base, 1) for scoring in scorings)
            if replies is not None and unrelated is not None:
                yield name, _Change(replies, unrelated)


def _against_itself(row: Row) -> _Change | None:
    """By what a variant's runs scored before training; without intervals."""
    shares = []
    for key in KEYS:
        before, after = _before(row, key), mean_score(row, key)
        if before is None or after is None:
            return None
        shares.append(after / before - 1)
    replies, unrelated = (Estimate(100 * s, text=signed_percent(s, 1)) for s in shares)
    return _Change(replies, unrelated)


def _before(row: Row, key: ScoreKey) -> float | None:
    return mean_score(row, replace(key, stage="before"))


def _base_of(row: Row, rows: Mapping[str, Row]) -> str | None:
    """The untrained variant that scores what a trained one scored before its training."""
    for name, other in rows.items():
        if other.plan.trains or other.plan.quantization != row.plan.quantization:
            continue
        if all(_agree(_before(row, key), mean_score(other, key)) for key in KEYS):
            return name
    return None


def _agree(own: float | None, base: float | None) -> bool:
    """Whether two scores may be of the same weights; nothing speaks against it without the own."""
    return base is not None and (own is None or math.isclose(own, base, rel_tol=SAME))


def _said(name: str, found: _Change) -> str:
    replies, unrelated = _percent(found.replies), _percent(found.unrelated)
    return f"{name}: perplexity of replies {replies}, loss on unrelated text {unrelated}"


def _percent(estimate: Estimate) -> str:
    return numbers.percent(estimate.value / 100, signed=True)


def _plane(overview: Overview, changes: Mapping[str, _Change]) -> Figure:
    points = tuple(
        Point(
            label=name,
            mark=overview.rows[name].mark,
            x=-found.replies.value,
            y=found.unrelated.value,
            said=_said(name, found),
        )
        for name, found in changes.items()
    )
    most = max(points, key=lambda point: point.x)
    return Figure(
        NAME,
        "Change on unrelated text (WikiText-2; below 0: better than the untrained base) against "
        "what training brought on held-out replies, each variant against its own untrained base",
        f"Change on unrelated text for {len(points)} variants; {most.label} learned most "
        f"({numbers.number(most.x, digits=3)} %)",
        Scatter(
            Axis("perplexity of replies, % lower than the base's", "higher"),
            Axis("change on unrelated text, %; below 0: better than base"),
            points,
        ),
    )


def _forest(overview: Overview, changes: Mapping[str, _Change]) -> Figure:
    """One row a variant, who learned most first: the change on replies, and on unrelated text."""
    ordered = dict(sorted(changes.items(), key=lambda one: one[1].replies.value))
    rows = tuple(
        ForestRow(
            name, overview.rows[name].mark, (found.replies, found.unrelated), _said(name, found)
        )
        for name, found in ordered.items()
    )
    replies, unrelated = (cut_at([row.estimates[place] for row in rows]) for place in (0, 1))
    panels = (
        Panel(panel_title("perplexity of replies", "%", "lower", replies), highest=replies),
        Panel(panel_title("loss on unrelated text", "%", "lower", unrelated), highest=unrelated),
    )
    left_out = [
        name for name, row in overview.rows.items() if row.plan.trains and name not in ordered
    ]
    missing = f". Not scored before training, and not shown: {', '.join(left_out)}"
    return Figure(
        NAME,
        f"What training changed for {len(rows)} variants, each against its own untrained base, "
        "with 95 % intervals where that base is a variant too: perplexity of held-out replies, "
        "and loss on unrelated text (WikiText-2). Below 0 is better than the base; above 0 at the "
        "right it forgot"
        f"{missing if left_out else ''}",
        _told(ordered),
        Forest(panels, rows, overview.key(list(ordered))),
    )


def _told(changes: Mapping[str, _Change]) -> str:
    """Who learned most and least, and who got worse on unrelated text."""
    names = list(changes)
    most, least = names[0], names[-1]
    worse = [
        f"{name} {_percent(found.unrelated)}"
        for name, found in changes.items()
        if found.unrelated.value > 0
    ]
    others = f"; the other {len(changes) - len(worse)} did not get worse"
    return (
        f"What training changed for {len(changes)} variants. Perplexity of replies: from "
        f"{_percent(changes[most].replies)} ({most}) to "
        f"{_percent(changes[least].replies)} ({least}). Worse on "
        f"unrelated text: {', '.join(worse) or 'none'}{others if worse else ''}"
    )
