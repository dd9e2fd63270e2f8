"""Recommend: which row fits the user's limits, why, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

from harness.report import numbers
from harness.report.evidence import Evidence
from harness.report.ranking import show_difference, show_limit
from harness.report.rows import Row
from harness.report.scoring import Difference, Scoring, make_difference


@dataclass(frozen=True)
class Recommendation:
    """The answer: a row (None when nothing fits), the reasons, and what is not known."""

    row: Row | None
    reasons: tuple[str, ...]
    sureness: tuple[str, ...]


def recommend(evidence: Evidence) -> Recommendation | None:
    """The row to use, or None when nothing was scored.

    Among trained rows within the memory limit: with ``max_loss`` the one that needs least memory
    and is not worse than the reference by more than that; without it the one that needs least
    memory among those whose difference from the best is shown to lie within the margin, which is
    the best itself where nothing else is.
    """
    main = evidence.main
    if main is None:
        return None
    scored = [evidence.by_label[label] for label in main.ordered()]
    trained = [row for row in scored if row.plan.trains] or scored
    fitting, reasons = _within_memory(evidence, trained)
    if not fitting:
        return Recommendation(None, tuple(reasons), ())
    if evidence.request.max_loss is not None and evidence.reference is not None:
        return _within_loss(evidence, main, fitting, reasons)
    return _near_best(evidence, main, fitting, reasons)


def _within_memory(evidence: Evidence, rows: list[Row]) -> tuple[list[Row], list[str]]:
    budget = evidence.request.budget_memory_bytes
    if budget is None:
        return rows, []
    known = [row for row in rows if memory(evidence, row) is not None]
    fitting = [row for row in known if (memory(evidence, row) or 0) <= budget]
    text = f"{len(fitting)} of {len(rows)} scored rows fit into {numbers.size(budget)}"
    if len(known) < len(rows):
        text += f" ({len(rows) - len(known)} with unknown memory are left out)"
    if not fitting and known:
        least = min(memory(evidence, row) or 0 for row in known)
        text += f"; the smallest needs {numbers.size(least)}"
    return fitting, [text + "."]


def memory(evidence: Evidence, row: Row) -> int | None:
    """Peak memory of a row, by the report's measure."""
    return row.peak_bytes(evidence.memory_kind)


def _cheapest(evidence: Evidence, main: Scoring, rows: list[Row]) -> Row:
    """Least memory; quality decides between equals and where memory is unknown."""
    place = {label: index for index, label in enumerate(main.ordered())}
    unknown = float("inf")
    return min(rows, key=lambda row: (memory(evidence, row) or unknown, place[row.label]))


def _within_loss(
    evidence: Evidence, main: Scoring, rows: list[Row], reasons: list[str]
) -> Recommendation:
    limit = evidence.request.max_loss or 0.0
    reference = evidence.reference or ""
    lost = {row.label: _loss(main, reference, row.label) for row in rows}
    good = [row for row in rows if (loss := lost[row.label]) is not None and loss[0] <= limit]
    shown = show_limit(main, limit)
    if not good:
        reasons.append(f"None of them loses at most {shown} against {reference}.")
        return Recommendation(None, tuple(reasons), ())
    sure = [row for row in good if (loss := lost[row.label]) is not None and loss[1] <= limit]
    chosen = _cheapest(evidence, main, sure or good)
    loss = lost[chosen.label] or (0.0, 0.0)
    needs = numbers.size(memory(evidence, chosen))
    reasons.append(
        f"Of the {len(sure or good)} that {'surely lose' if sure else 'lose'} at most {shown} "
        f"against {reference} it needs the least memory, {needs}; its own loss is "
        f"{show_difference(main, loss[0])}."
    )
    if sure:
        text = (
            f"Sure: the 95 % interval ends at {show_difference(main, loss[1])}, within the limit."
        )
    else:
        text = (
            f"Not sure: the 95 % interval reaches to {show_difference(main, loss[1])}, past the "
            "limit."
        )
    return Recommendation(chosen, tuple(reasons), (text,))


def _loss(main: Scoring, reference: str, label: str) -> tuple[float, float] | None:
    """Estimate and upper end of how much worse a row is, in the terms shown."""
    if label == reference:
        return 0.0, 0.0
    found = main.differences.get(label)
    if found is None:
        return None
    low, high = found.low * main.scale.sign, found.high * main.scale.sign
    return found.estimate * main.scale.sign, max(low, high)


def _near_best(
    evidence: Evidence, main: Scoring, rows: list[Row], reasons: list[str]
) -> Recommendation:
    best = rows[0]
    value = numbers.number(main.values[best.label].value)
    alike = [best]
    gaps = {row.label: against(main, row.label, best.label) for row in rows[1:]}
    for row in rows[1:]:
        gap = gaps[row.label]
        if gap is not None and gap.not_worse:
            alike.append(row)
    chosen = _cheapest(evidence, main, alike)
    needs = numbers.size(memory(evidence, chosen))
    if chosen is best:
        reasons.append(f"It has the best {main.key.title}, {value}, and needs {needs}.")
    else:
        gap = gaps[chosen.label]
        assert gap is not None  # noqa: S101 - it is among the compared
        margin = show_limit(main, main.scale.margin)
        reasons.append(
            f"It is not worse than the best, {best.label} ({value}), by more than {margin} "
            f"({show_difference(main, gap.estimate)}), and needs the least memory of those, "
            f"{needs}."
        )
    return Recommendation(chosen, tuple(reasons), _sureness(main, rows, best, gaps))


def against(main: Scoring, label: str, other: str) -> Difference | None:
    """A single uncorrected paired comparison of two rows on the main score."""
    if main.sample is None:
        return None
    found = main.sample.paired(label, other)
    return None if found is None else make_difference(label, found, found.p_value, main.scale)


def _sureness(
    main: Scoring, rows: list[Row], best: Row, gaps: dict[str, Difference | None]
) -> tuple[str, ...]:
    chance = main.best_chance.get(best.label)
    texts = []
    if chance is not None and len(rows) > 1:
        texts.append(
            f"With items and seeds drawn anew, {best.label} comes out best of all rows in "
            f"{_share(chance)} of the draws."
        )
    open_rows = [label for label, gap in gaps.items() if gap and gap.verdict == "undecided"]
    if open_rows:
        shown = ", ".join(open_rows[:4]) + (" and others" if len(open_rows) > 4 else "")
        texts.append(f"Not told apart from {best.label} by these data: {shown}.")
    return tuple(texts)


def _share(value: float) -> str:
    return "over 99 %" if value > 0.99 else numbers.percent(value, digits=0)
