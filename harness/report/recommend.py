"""Recommend: which row fits the user's limits, why, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness import numbers
from harness.report.cells import show_difference, show_limit
from harness.report.cheapest import cheapest, least_memory
from harness.report.contest import Contest, hold_contest
from harness.report.evidence import Evidence
from harness.report.forms import advise
from harness.report.rows import Row
from harness.report.scoring import Scoring
from harness.report.sureness import lacking, of_contest, of_no_contest

ALPHA = 0.05
NAMED = 4
OF_ALL = "of these runs"


@dataclass(frozen=True)
class Recommendation:
    """The answer: a row (None when nothing fits), the reasons, and what is not known.

    ``rivals`` may be the best: among the rows that could be chosen, none beats them. Where the
    row is ``beaten``, one of them is shown to be better; otherwise they may be as good as the row.
    """

    row: Row | None
    reasons: tuple[str, ...]
    sureness: tuple[str, ...]
    rivals: tuple[str, ...] = ()
    beaten: bool = False


def recommend(evidence: Evidence) -> Recommendation | None:
    """The row to use, or None when nothing was scored.

    Among trained rows within the memory limit: with ``max_loss`` the one that needs least memory
    of those that are shown not to be worse than the reference by more; without it the one that
    needs least memory of those that are shown to lie within the margin of the best, which is the
    best itself where nothing else is. Where nothing tells any two rows apart, it is the cheapest
    of those that came within the margin of the best in these runs. How sure it is, is always said.
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
    known = [(row, peak) for row in rows if (peak := evidence.peak(row)) is not None]
    fitting = [row for row, peak in known if peak <= budget]
    text = f"{len(fitting)} of {len(rows)} scored rows fit into {numbers.size(budget)}"
    if len({row.plan.device.kind for row in rows}) > 1:
        text += " of a GPU's memory, or of resident memory where they ran on a processor"
    if len(known) < len(rows):
        text += f" ({len(rows) - len(known)} with unknown memory are left out)"
    if not fitting and known:
        least = min(peak for _, peak in known)
        text += f"; the smallest needs {numbers.size(least)}"
    return fitting, [text + "."]


def _within_loss(
    evidence: Evidence, main: Scoring, rows: list[Row], reasons: list[str]
) -> Recommendation:
    limit = evidence.request.max_loss or 0.0
    reference = evidence.reference or ""
    lost = {row.label: _loss(main, reference, row.label, len(rows)) for row in rows}
    sure = [row for row in rows if _at_most(lost[row.label], limit)]
    others = [row.label for row in sure if row.label != reference]
    if not sure:
        return _loses_too_much(evidence, main, rows, reasons)
    chosen, tie = least_memory(evidence, sure)
    needs = evidence.needed(chosen)
    most = f"at most {show_limit(main, limit)} against {reference} (95 % confidence)"
    if not others:
        text = f"No other variant is shown to lose {most}. {chosen.label} needs {needs}."
        reasons.append(text)
    else:
        counted = "One other variant loses" if len(others) == 1 else f"{len(others)} others lose"
        reasons.append(f"{counted} {most}: {numbers.some_of(others, NAMED)}.")
    if others and len(sure) > 1:
        among = f"these and {reference} itself" if len(others) < len(sure) else "these"
        reasons.append(f"Of {among}, {chosen.label} needs the least memory, {needs}.")
    elif others:
        reasons.append(f"It needs {needs}.")
    texts = _loss_sureness(evidence, main, rows, chosen)
    sureness = (*texts, *([tie] if tie else []))
    return _beside_rivals(chosen, tuple(reasons), sureness, _contest(main, rows))


def _loss_sureness(
    evidence: Evidence, main: Scoring, rows: list[Row], chosen: Row
) -> tuple[str, ...]:
    """What is known of the loss of the row that is chosen, or of the others beside the reference.

    The reference loses nothing against itself, which says nothing about any variant.
    """
    reference = evidence.reference or ""
    loss = _loss(main, reference, chosen.label, len(rows))
    if chosen.label != reference and loss is not None and loss[1] is not None:
        text = (
            f"Against {reference}, {chosen.label} loses {show_difference(main, loss[0])} on these "
            f"data and at most {show_difference(main, loss[1])} (95 % confidence)."
        )
        return (text,)
    rest = [row for row in rows if row is not chosen]
    if not rest:
        return of_no_contest(evidence, main, rows)
    text = f"Loss is counted from {reference}, which loses nothing against itself."
    best = rows[0]
    if best is not chosen:
        value = numbers.number(main.values[best.label].value)
        text += f" The best {main.key.title} of these runs is that of {best.label}, {value}."
    return (text, *lacking(main, rows))


def _loses_too_much(
    evidence: Evidence, main: Scoring, rows: list[Row], reasons: list[str]
) -> Recommendation:
    """Nothing is shown to lose as little: names the row that may."""
    limit, reference = evidence.request.max_loss or 0.0, evidence.reference or ""
    lost = {row.label: _loss(main, reference, row.label, len(rows)) for row in rows}
    close = [row for row in rows if (loss := lost[row.label]) is not None and loss[0] <= limit]
    shown = show_limit(main, limit)
    reasons.append(f"No variant is shown to lose at most {shown} against {reference}.")
    if not close:
        return Recommendation(None, tuple(reasons), ())
    chosen, _ = least_memory(evidence, close)
    loss = lost[chosen.label] or (0.0, None)
    text = (
        f"{chosen.label} loses {show_difference(main, loss[0])} on these data and needs "
        f"{evidence.needed(chosen)}"
    )
    if loss[1] is not None:
        text += f", but its true loss may be as large as {show_difference(main, loss[1])}."
    elif main.differences[chosen.label].obstacle == "one training":
        text += ", but with one training each its true loss is unknown."
    else:
        text += ", but its true loss is unknown."
    known = loss[1] is not None
    return Recommendation(None, tuple(reasons), (text, *(() if known else lacking(main, rows))))


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
    contest = _contest(main, rows)
    if contest is None or not contest.may_be_best:
        found, reason = _cheapest_close(evidence, main, rows)
        return Recommendation(found, (*reasons, reason), of_no_contest(evidence, main, rows))
    judged = [row for row in rows if row.label not in contest.unjudged]
    of_these = "of those that were judged" if contest.unjudged else ""
    near = [row for row in judged if row.label in contest.near_best]
    if not near and len(contest.may_be_best) == len(judged):
        found, reason = _cheapest_close(evidence, main, judged, of_these or OF_ALL)
        sureness = of_contest(contest, rows, found, "")
        return _beside_rivals(found, (*reasons, reason), sureness, contest)
    best = judged[0]
    value = numbers.number(main.values[best.label].value)
    chosen, tie = least_memory(evidence, [best, *(row for row in near if row is not best)])
    needs = evidence.needed(chosen)
    title = f"{main.key.title} {of_these}".rstrip()
    if chosen is best:
        reasons.append(f"It has the best {title}, {value}, and needs {needs}.")
    else:
        reasons.append(
            f"It is shown to lie within {show_limit(main, main.scale.margin)} of the best variant "
            f"(95 % confidence), and of those it needs the least memory, {needs}. The best "
            f"{title} is that of {best.label}, {value}."
        )
    sureness = of_contest(contest, rows, chosen, tie)
    return _beside_rivals(chosen, tuple(reasons), sureness, contest)


def _cheapest_close(
    evidence: Evidence, main: Scoring, rows: list[Row], of_these: str = OF_ALL
) -> tuple[Row, str]:
    """The row to take where nothing tells any two apart, and why.

    The cheapest of those whose value in these runs lies within the margin of the best one's,
    since differences within it do not matter. ``of_these`` says in words which rows there are.
    """
    best = rows[0]
    value = numbers.number(main.values[best.label].value)
    close = [row for row in rows if _is_close(main, row, best)]
    chosen, why = cheapest(evidence, close)
    title, margin = main.key.title, show_limit(main, main.scale.margin)
    needs = evidence.needed(chosen)
    if len(close) == 1:
        needed = "" if evidence.peak(chosen) is None else f", and needs {needs}"
        return chosen, f"It has the best {title} {of_these}, {value}{needed}."
    if chosen is best:
        others = numbers.some_of([row.label for row in close if row is not best], NAMED)
        text = f"It has the best {title} {of_these}, {value}; {others} came within {margin}"
        return chosen, f"{text}. Of these {why}."
    own = numbers.number(main.values[chosen.label].value)
    text = f"Its {title}, {own}, came within {margin} of the best {of_these}"
    return chosen, f"{text} ({best.label}, {value}), and of those so close {why}."


def _is_close(main: Scoring, row: Row, best: Row) -> bool:
    """Whether a value lies within the margin of the best one."""
    own, least = main.values[row.label].value, main.values[best.label].value
    if main.scale.relative:
        return own <= least * (1 + main.scale.margin)
    return abs(own - least) <= main.scale.margin


def _contest(main: Scoring, rows: list[Row]) -> Contest | None:
    """The contest of the rows that could be chosen; None where nothing was scored alike."""
    if main.sample is None:
        return None
    return hold_contest(main.sample, main.scale, [row.label for row in rows])


def _beside_rivals(
    chosen: Row, reasons: tuple[str, ...], sureness: tuple[str, ...], contest: Contest | None
) -> Recommendation:
    """The recommendation of a row, with the others that may be the best."""
    best = () if contest is None else contest.may_be_best
    rivals = tuple(label for label in best if label != chosen.label)
    judged = contest is not None and chosen.label not in contest.unjudged
    return Recommendation(chosen, reasons, sureness, rivals, judged and len(rivals) == len(best))
