"""Recommend: which row fits the user's limits, why, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness import numbers
from harness.report.cells import show_difference, show_limit
from harness.report.contest import Contest, hold_contest
from harness.report.evidence import Evidence
from harness.report.forms import advise
from harness.report.rows import Row
from harness.report.scoring import Scoring
from harness.report.ties import CostOrder, memory_order

ALPHA = 0.05
NAMED = 4


@dataclass(frozen=True)
class Recommendation:
    """The answer: a row (None when nothing fits), the reasons, and what is not known.

    ``rivals`` may be as good as the row: among the rows that could be chosen, none beats them.
    """

    row: Row | None
    reasons: tuple[str, ...]
    sureness: tuple[str, ...]
    rivals: tuple[str, ...] = ()


def recommend(evidence: Evidence) -> Recommendation | None:
    """The row to use, or None when nothing was scored.

    Among trained rows within the memory limit: with ``max_loss`` the one that needs least memory
    of those that are shown not to be worse than the reference by more; without it the one that
    needs least memory of those that are shown to lie within the margin of the best, which is the
    best itself where nothing else is. Rows trained once are ranked, but nothing is shown of them.
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
        return _with_form(_within_loss(evidence, main, fitting, reasons))
    return _with_form(_near_best(evidence, main, fitting, reasons))


def _with_form(found: Recommendation) -> Recommendation:
    """The same, with the form to deploy where the runs of the row scored any."""
    advice = None if found.row is None else advise(found.row)
    return found if advice is None else replace(found, reasons=(*found.reasons, advice))


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


def _least(evidence: Evidence, rows: list[Row]) -> tuple[Row, str]:
    """The row that needs least memory, and what to say of rows that measure the same."""
    order = memory_order(evidence.rows, evidence.memory_kind)
    chosen = order.least(rows)
    tied = [row.label for row in rows if row is not chosen and order.tied(row, chosen)]
    return chosen, _tie(order, chosen, tied)


def _tie(order: CostOrder, chosen: Row, tied: list[str]) -> str:
    if not tied:
        return ""
    text = (
        f"Its peak memory and that of {numbers.some_of(tied, NAMED)} count as a tie: repeated "
        f"runs of one variant differ by up to {numbers.percent(order.alike, digits=0)}."
    )
    if order.breakers and chosen.predicted_bytes is not None:
        text += " The predicted memory, which does not vary between runs, decides."
    return text


def _within_loss(
    evidence: Evidence, main: Scoring, rows: list[Row], reasons: list[str]
) -> Recommendation:
    limit = evidence.request.max_loss or 0.0
    reference = evidence.reference or ""
    shown = show_limit(main, limit)
    lost = {row.label: _loss(main, reference, row.label, len(rows)) for row in rows}
    sure = [row for row in rows if _at_most(lost[row.label], limit)]
    if sure:
        chosen, tie = _least(evidence, sure)
        counted = "One variant loses" if len(sure) == 1 else f"{len(sure)} variants lose"
        least = "" if len(sure) == 1 else "; the one that needs the least memory is "
        name = f": {chosen.label}" if len(sure) == 1 else f"{least}{chosen.label}"
        needs = chosen.needed_said(evidence.memory_kind)
        reasons.append(
            f"{counted} at most {shown} against {reference} (95 % confidence){name}, {needs}."
        )
        rivals = _rivals(_contest(main, rows), chosen)
        return Recommendation(chosen, tuple(reasons), (tie,) if tie else (), rivals)
    close = [row for row in rows if (loss := lost[row.label]) is not None and loss[0] <= limit]
    reasons.append(f"No variant is shown to lose at most {shown} against {reference}.")
    if not close:
        return Recommendation(None, tuple(reasons), ())
    chosen, _ = _least(evidence, close)
    loss = lost[chosen.label] or (0.0, None)
    text = (
        f"{chosen.label} loses {show_difference(main, loss[0])} on these data and needs "
        f"{chosen.needed_said(evidence.memory_kind)}"
    )
    if loss[1] is None:
        text += ", but with one training each its true loss is unknown."
    else:
        text += f", but its true loss may be as large as {show_difference(main, loss[1])}."
    return Recommendation(None, tuple(reasons), (text,))


def _at_most(loss: tuple[float, float | None] | None, limit: float) -> bool:
    return loss is not None and loss[1] is not None and loss[1] <= limit


def _loss(
    main: Scoring, reference: str, label: str, candidates: int
) -> tuple[float, float | None] | None:
    """How much worse a row is, and at most is; the bounds of all candidates hold together."""
    if label == reference:
        return 0.0, 0.0
    found = main.differences.get(label)
    if found is None:
        return None
    worse_by, sign = found.worse_by, main.scale.sign
    if found.obstacle:
        return found.estimate * sign, None
    bound = worse_by.interval(ALPHA / max(candidates, 1))[1]
    return found.estimate * sign, main.scale.difference(bound)


def _near_best(
    evidence: Evidence, main: Scoring, rows: list[Row], reasons: list[str]
) -> Recommendation:
    best = rows[0]
    value = numbers.number(main.values[best.label].value)
    contest = _contest(main, rows)
    if contest is None or not contest.may_be_best:
        reasons.append(f"It has the best {main.key.title} of these runs, {value}.")
        return Recommendation(best, tuple(reasons), _unsure(evidence, rows))
    near = [row for row in rows if row.label in contest.near_best]
    best = next(row for row in rows if row.label not in contest.unjudged)
    value = numbers.number(main.values[best.label].value)
    chosen, tie = _least(evidence, [best, *(row for row in near if row is not best)])
    needs = chosen.needed_said(evidence.memory_kind)
    if chosen is best:
        reasons.append(f"It has the best {main.key.title}, {value}, and needs {needs}.")
    else:
        reasons.append(
            f"It is shown to lie within {show_limit(main, main.scale.margin)} of the best variant "
            f"(95 % confidence), and of those it needs the least memory, {needs}. The best "
            f"{main.key.title} is that of {best.label}, {value}."
        )
    sureness = _sureness(contest, rows, chosen, tie)
    return Recommendation(chosen, tuple(reasons), sureness, _rivals(contest, chosen))


def _contest(main: Scoring, rows: list[Row]) -> Contest | None:
    """The contest of the rows that could be chosen; None where nothing was scored alike."""
    if main.sample is None:
        return None
    labels = [row.label for row in rows if main.sample.columns(row.label)]
    return hold_contest(main.sample, main.scale, labels)


def _rivals(contest: Contest | None, chosen: Row) -> tuple[str, ...]:
    found = () if contest is None else contest.may_be_best
    return tuple(label for label in found if label != chosen.label)


def _unsure(evidence: Evidence, rows: list[Row]) -> tuple[str, ...]:
    """Why nothing is known beyond the order of these runs."""
    if any(row.plan.trains and len(row.seeds) < 2 for row in rows) and len(rows) > 1:
        text = (
            "This is the order of single trainings: it says nothing certain about the variants. "
            "Train each with three seeds or more (--seeds 0..2)."
        )
        return (text,)
    main = evidence.main
    if len(rows) > 1 and main is not None and main.excluded:
        return ("The rows could not be compared on the same items.",)
    return ()


def _sureness(contest: Contest, rows: list[Row], chosen: Row, tie: str) -> tuple[str, ...]:
    texts = []
    if len(rows) > 1:
        others = [label for label in contest.may_be_best if label != chosen.label]
        if chosen.label in contest.may_be_best and not others:
            which = "trained variants" if chosen.plan.trains else "variants"
            count = len(rows) - len(contest.unjudged)
            texts.append(f"{chosen.label} is the best of the {count} {which} (95 % confidence).")
        else:
            texts.append(
                "May be the best (95 % confidence): "
                f"{numbers.some_of(contest.may_be_best, NAMED)}; these data cannot tell which."
            )
    if contest.unjudged:
        texts.append(
            "Not judged, because they were trained once or on too few items: "
            f"{numbers.some_of(contest.unjudged, NAMED)}."
        )
    if tie:
        texts.append(tie)
    return tuple(texts)
