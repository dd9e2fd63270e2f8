"""Sureness: how sure a recommendation is, and what a surer one would need."""

from __future__ import annotations

from harness import numbers
from harness.report.cells import difference_text, judged_cell
from harness.report.contest import Contest
from harness.report.evidence import Evidence
from harness.report.rows import Row
from harness.report.scoring import Scoring
from harness.report.statistics.effects import FEWEST_CLUSTERS, FEWEST_EFFECTIVE

NAMED = 4


def of_contest(contest: Contest, rows: list[Row], chosen: Row, tie: str) -> tuple[str, ...]:
    """Which rows may be the best, and which were not judged."""
    texts = []
    if len(rows) > 1:
        if len(contest.may_be_best) == 1:
            which = "trained variants" if chosen.plan.trains else "variants"
            count = len(rows) - len(contest.unjudged)
            best = contest.may_be_best[0]
            texts.append(f"{best} is the best of the {count} {which} (95 % confidence).")
        else:
            beaten = "" if chosen.label in contest.may_be_best else f", not {chosen.label}"
            texts.append(
                "May be the best (95 % confidence): "
                f"{numbers.some_of(contest.may_be_best, NAMED)}{beaten}; these data cannot tell "
                "which."
            )
    if contest.unjudged:
        texts.append(
            "Not judged, because they were trained once or scored on too few or other items: "
            f"{numbers.some_of(contest.unjudged, NAMED)}."
        )
    if tie:
        texts.append(tie)
    return tuple(texts)


def of_no_contest(evidence: Evidence, main: Scoring, rows: list[Row]) -> tuple[str, ...]:
    """What is known where no contest was held: that nothing tells rows apart, and why."""
    chosen = rows[0]
    if len(rows) > 1:
        kind = "trained variants" if chosen.plan.trains else "variants"
        return (f"Nothing tells these {len(rows)} {kind} apart.", *lacking(main, rows))
    kind = "trained variant" if chosen.plan.trains else "variant"
    text = f"{chosen.label} is the only {kind} to choose: it was compared with no other"
    found = main.differences.get(chosen.label)
    if found is None or found.low is None:
        return (f"{text}.", *lacking(main, rows))
    told = f"{difference_text(main, found)}, {judged_cell(found).text}"
    return (f"{text}. Against {evidence.reference}: {told}.",)


def lacking(main: Scoring, rows: list[Row]) -> tuple[str, ...]:
    """What a verdict about these rows would need; empty where nothing is amiss."""
    texts = []
    if 0 < main.clusters < FEWEST_CLUSTERS:
        texts.append(
            f"Only {main.clusters} groups of held-out items were scored; an interval and a verdict "
            f"need {FEWEST_CLUSTERS}."
        )
    single = [row.label for row in rows if row.plan.trains and len(row.seeds) < 2]
    if single and len(rows) > 1:
        texts.append(
            "This is the order of single trainings: it says nothing certain about the variants. "
            "Train each with three seeds or more (--seeds 0..2)."
        )
    elif single:
        texts.append(
            "One training says nothing certain about another one of this variant. Train it with "
            "three seeds or more (--seeds 0..2)."
        )
    if len(rows) > 1 and main.excluded:
        texts.append("The rows could not be compared on the same items.")
    if len(rows) > 1 and not texts:
        texts.append(_incomparable(main, rows))
    return tuple(texts)


def _incomparable(main: Scoring, rows: list[Row]) -> str:
    """Why rows with several seeds and enough groups of items cannot be compared."""
    sample = main.sample
    if sample is None:
        return "No values of single items were kept, on which they could be compared."
    known = [sample.own(row.label) for row in rows if sample.columns(row.label)]
    if any(found.obstacle == "few items" for found in known):
        return (
            "The groups of held-out items weigh so unequally that they are worth fewer than "
            f"{FEWEST_EFFECTIVE:g}."
        )
    return "They have no seed in common, or no item on which anything varies."
