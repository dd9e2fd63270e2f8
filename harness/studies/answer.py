"""Answer: what a study says, in sentences, with how sure it is and what would change it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from harness import numbers
from harness.report.cells import REASONS as OBSTACLES
from harness.report.cells import difference_text, show_limit
from harness.report.judging import Difference
from harness.report.scoring import Scoring
from harness.studies.agenda import Agenda, Standing
from harness.studies.budget import Spent
from harness.studies.looks import Conclusion, Limit

USELESS = (
    10.0  # an interval that reaches so far, in relative terms or the score's own, says nothing
)
NAMED = 4
WORDS = {
    "better": "better than",
    "worse": "worse than",
    "equivalent": "equivalent to",
    "undecided": "not decided against",
    "differs": "not decided against",
}


@dataclass(frozen=True)
class StudyAnswer:
    """The sentences that a page opens with.

    ``state`` is "answered" when every comparison is decided at the rates that the study asks for,
    "open" when no run can decide the rest, and "partial" while runs are still to come.
    """

    state: str
    conclusions: tuple[str, ...]
    sureness: tuple[str, ...]
    cost: str
    changes: tuple[str, ...]


def answer(agenda: Agenda) -> StudyAnswer:
    """What the study says as it stands."""
    main = agenda.main
    assert main is not None  # noqa: S101 - the default setting always stands
    found = [main.conclusion(arm.label) for arm in agenda.comparison.arms]
    known = [conclusion for conclusion in found if conclusion is not None]
    tuning = _is_tuning(agenda)
    waits = bool(agenda.jobs) or agenda.stopped != "" or tuning
    decided = not tuning and bool(known) and all(conclusion.decided for conclusion in known)
    state = "partial" if waits and not decided else "answered" if decided else "open"
    return StudyAnswer(
        state=state,
        conclusions=tuple(_conclusions(agenda, main, known)),
        sureness=tuple(_sureness(agenda, main, known)),
        cost=_cost(agenda),
        changes=tuple(_changes(agenda, main, known)),
    )


def _is_tuning(agenda: Agenda) -> bool:
    return agenda.comparison.study.tune.trials > 1 and "best" not in agenda.standings


def scoring_of(standing: Standing) -> Scoring | None:
    """The standing's score in the form that differences are written with."""
    if standing.scale is None:
        return None
    return Scoring(standing.key, standing.scale, headline=True, values={}, excluded={})


def shown(standing: Standing, difference: Difference) -> str:
    """A difference with its interval, in the score's own terms."""
    scoring = scoring_of(standing)
    if scoring is None:
        return ""
    if difference.high is not None and difference.high > USELESS:
        difference = replace(difference, low=None, high=None)
        return difference_text(scoring, difference) + ", no useful interval yet"
    text = difference_text(scoring, difference)
    if difference.low is None and difference.obstacle:
        text += f", no interval: {OBSTACLES[difference.obstacle]}"
    return text


def value_of(standing: Standing, label: str) -> float | None:
    """An arm's score, the mean over its seeds on the scale that is compared."""
    found = [standing.key.find(run.record) for run in standing.runs.get(label, ())]
    values = np.array([score.value for score in found if score is not None])
    if not len(values) or standing.scale is None:
        return None
    if standing.scale.relative:
        return float(np.exp(np.log(values).mean()))
    return float(values.mean())


def _conclusions(agenda: Agenda, main: Standing, known: list[Conclusion]) -> Iterator[str]:
    if _is_tuning(agenda) and len(agenda.comparison.arms) > 1:
        yield "Learning rates are still being tuned; what follows compares default settings."
    if not known:
        yield "Nothing can be said yet."
    order = {"better": 0, "equivalent": 1, "worse": 2}
    reference = agenda.comparison.reference
    compared = [one for one in known if one.difference is not None]
    for found in sorted(compared, key=lambda one: order.get(_verdict(one), 3)):
        yield _sentence(main, reference, found)
    others: dict[str, list[str]] = {}
    for found in known:
        if found.difference is None:
            others.setdefault(reason(found), []).append(found.label)
    for why, labels in others.items():
        yield f"{numbers.some_of(labels, NAMED)}: {why}."


def _verdict(found: Conclusion) -> str:
    return "" if found.difference is None else found.difference.verdict


def _sentence(main: Standing, reference: str, found: Conclusion) -> str:
    assert found.difference is not None  # noqa: S101 - the caller has looked
    text = f"{found.label} is {WORDS[found.difference.verdict]} {reference}: "
    text += f"{main.key.title} {shown(main, found.difference)}, {seeds_of(found)}"
    text += "".join(_missing(main, reference, found))
    return text + (f" ({reason(found)})." if found.limit else ".")


def seeds_of(found: Conclusion) -> str:
    """The seeds that a difference is made of: those at which both sides ended well."""
    if not found.pairs:
        return "neither is trained"
    return f"{found.pairs} seed" + ("s" if found.pairs != 1 else "")


def _missing(main: Standing, reference: str, found: Conclusion) -> Iterator[str]:
    """Runs of both sides that the difference lacks."""
    for label in (found.label, reference):
        seeds = [str(seed) for seed in main.failed.get(label, ()) if seed < found.seeds]
        if seeds:
            at = f"seed{'s' if len(seeds) > 1 else ''} {numbers.some_of(seeds, len(seeds))}"
            yield f"; {label} failed at {at}"
    if found.why:
        yield f"; some runs of {found.label} are left out: {found.why}"


def reason(found: Conclusion) -> str:
    """Why a comparison is not decided, or not made."""
    if found.difference is None and found.why:
        whose = "the reference's" if found.limit == "reference" else "its"
        return f"{whose} runs are left out: {found.why}"
    return REASONS[found.limit]


REASONS: dict[Limit, str] = {
    "": "",
    "items": "items and not seeds keep it open",
    "seeds": "open after the last seed that the study allows",
    "failed": "no run finished",
    "excluded": "its runs are left out",
    "unpaired": "there is no seed at which both it and the reference ended well",
    "reference": "no run of the reference finished",
    "dropped": "dropped by a decision",
    "waiting": "more runs are to come",
}


def _sureness(agenda: Agenda, main: Standing, known: list[Conclusion]) -> Iterator[str]:
    """How often what is concluded may be wrong; a comparison that is open concludes nothing."""
    study = agenda.comparison.study
    drawn = sum(found.decided for found in known)
    what = "this conclusion" if drawn == 1 else f"any of these {drawn} conclusions"
    shown = any(found.difference is not None for found in known)
    wrong = (
        f"The chance that {what} is wrong, at whichever look it was drawn, is at most "
        f"{study.alpha * 100:.3g} %."
    )
    nothing = f"Nothing is concluded{'' if agenda.finished else ' yet'}."
    sure = [wrong if drawn else nothing]
    if shown:
        sure.append("Intervals hold at all looks together.")
    yield " ".join(sure)
    if shown and drawn < len(known):
        yield "An undecided comparison shows neither a difference nor its absence."
    if main.setting == "default" and study.tune.trials > 1:
        yield "At one shared default rate a ranking can be wrong: wait for the tuned comparison."
    edges = [label for label, found in agenda.searches.items() if found.edge]
    if edges:
        yield (
            f"The best learning rate of {', '.join(edges)} lies at the edge of what was tried, "
            "so a better one may exist."
        )


def _cost(agenda: Agenda) -> str:
    spent = agenda.spent
    text = f"{spent.runs:,} runs, {numbers.duration(spent.seconds)} of run time"
    text += _energy(spent)
    if spent.begun:
        text += f", and {numbers.duration(spent.begun)} of runs that are yet to go on"
    if spent.failed:
        text += f"; {spent.failed} failed"
    return text + "."


def _energy(spent: Spent) -> str:
    """What was measured, and of how many runs it is not the whole."""
    if spent.joules is None:
        return ", energy not measured" if spent.runs else ""
    text = f", {numbers.energy(spent.joules)} measured"
    if spent.measured == spent.runs:
        return text
    return f"{text} in {spent.measured:,} of the runs (unknown for {spent.runs - spent.measured:,})"


def _changes(agenda: Agenda, main: Standing, known: list[Conclusion]) -> Iterator[str]:
    """What would decide what is open."""
    if agenda.stopped:
        yield f"The study has stopped: {agenda.stopped}. More budget lets it go on."
    elif agenda.jobs:
        yield f"{len(agenda.jobs)} runs come next."
    yield from _next_look(main, known)
    scoring = scoring_of(main)
    for found in known:
        if found.decided or found.difference is None or scoring is None:
            continue
        margin = show_limit(scoring, scoring.scale.margin)
        if found.limit == "items":
            ways = f"{_more_items(main, found)}, not seeds,"
            yield f"{found.label}: {ways} would decide whether it lies within {margin}."
        elif found.limit == "seeds":
            needed = found.difference.needed
            seeds = needed.seeds if needed else None
            ways = f"about {seeds} seeds" if seeds else "more seeds and more items"
            yield f"{found.label}: {ways} would decide whether it lies within {margin}."


def _next_look(main: Standing, known: list[Conclusion]) -> Iterator[str]:
    """What is open only because seeds that the study allows were not run."""
    waits = [one for one in known if one.limit == "waiting" and one.difference is not None]
    for seeds in sorted({one.seeds for one in waits}):
        labels = [one.label for one in waits if one.seeds == seeds]
        yield (
            f"{numbers.some_of(labels, NAMED)}: open at {seeds} seeds; the next look needs "
            f"{max(main.following.wanted.values(), default=seeds + 1)} of each side."
        )


def _more_items(main: Standing, found: Conclusion) -> str:
    """How many more items than now would do."""
    runs = main.runs.get(found.label, ())
    score = main.key.find(runs[0].record) if runs else None
    if score is None or found.more_items is None:
        return "more items"
    more = math.ceil((found.more_items - 1) * score.n)
    held_out = main.key.task == "held_out"
    return f"about {more:,} more {'held-out conversations' if held_out else 'items'}"
