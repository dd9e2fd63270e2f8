"""Scores: a claim about the scores of two variants, or of two forms of one, paired on items."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np

from harness import numbers
from harness.report.claims.compared import Sides, not_run, out_of_reach, sides_of, who_lacks
from harness.report.claims.decide import Leaning, LookCorrection, lean, regions, said_of
from harness.report.claims.ground import Ground
from harness.report.gains import mean_score
from harness.report.pairing import Aligned, ScoreKey, read_items
from harness.report.rows import Row
from harness.report.sample import Scale, make_sample, make_scale
from harness.report.statistics.effects import Effect
from harness.report.statistics.noise import normal_quantile
from harness.report.statistics.power import needed
from harness.spec.claim import USUAL_MARGIN, FormCheck, ScoreCheck

MORE = "more seeds or more items"
USUAL = "held_out perplexity"  # needs no name where many results stand below each other


class Shown(Protocol):
    """How a difference is written."""

    def __call__(self, share: float, *, signed: bool) -> str:
        """The text of a share."""


def compare_scores(check: ScoreCheck, ground: Ground) -> Leaning:
    """The difference of two variants on a score, where both were tuned also at default rates."""
    sides = sides_of(check, ground)
    if isinstance(sides, Leaning):
        return sides
    obstacle = _untested(check, sides)
    if obstacle:
        return out_of_reach(obstacle)
    found = _scored(check, ground, sides)
    if sides.wanting and found.errors is not None:
        return replace(found, outcome="undecided", decides=sides.wanting, errors=None)
    if not sides.tuned or check.rates or found.outcome == "out of reach":
        return found
    before = sides_of(check.model_copy(update={"rates": "default"}), ground)
    if isinstance(before, Leaning):
        return found
    shared = _scored(check, ground, before)
    return replace(found, text=f"{found.text}; {shared.text}")


def _untested(check: ScoreCheck, sides: Sides) -> str:
    """Why these two rows do not test the sentence; empty where they do."""
    if check.parameters is not None:
        found = _unlike(sides, *check.parameters)
        if found:
            return found
    key = ScoreKey.named(check.score)
    guessed = "" if check.chance is None else _guessed(key, check.chance, sides)
    return guessed or (_unharmed(key, sides) if check.lost else "")


def _guessed(key: ScoreKey, chance: float, sides: Sides) -> str:
    """That neither side scores more than guessing does, so that there is nothing to compare.

    A side is above ``chance`` where that lies below its mean's 95 % interval over items.
    """
    means = []
    for row in (sides.own, sides.other):
        mean = mean_score(row, key)
        found = [s.standard_error for r in row.finished if (s := key.find(r)) and s.standard_error]
        if mean is None or not found or mean - normal_quantile(0.975) * max(found) > chance:
            return ""
        means.append(numbers.percent(mean))
    return (
        f"both answer as guessing does ({' and '.join(means)}, by chance "
        f"{numbers.percent(chance)}), so that training could not lower {key.title}"
    )


def _unlike(sides: Sides, low: float, high: float) -> str:
    """That one trains too many more parameters than the other."""
    own, other = (_trained_parameters(row) for row in (sides.own, sides.other))
    if not own or not other:
        uncounted = who_lacks((sides.own, sides.other), lambda row: bool(_trained_parameters(row)))
        return f"no count of trained parameters for {uncounted}"
    if low <= own / other <= high:
        return ""
    counts = f"{numbers.count(own)} against {numbers.count(other)}"
    return f"trained parameters {counts}, outside of {low:g} to {high:g} times"


def _trained_parameters(row: Row) -> int | None:
    census = next((record.census for record in row.finished if record.census), None)
    return None if census is None else census.trainable


def _unharmed(key: ScoreKey, sides: Sides) -> str:
    """That training made the score worse on neither side, so that no loss can be compared."""
    gains = [_gain(key, row) for row in (sides.own, sides.other)]
    known = [gain for gain in gains if gain is not None]
    if len(known) < len(gains):
        rows = (sides.own, sides.other)
        lacking = who_lacks(rows, lambda row: _gain(key, row) is not None)
        return f"{key.title} was not taken before training by {lacking}"
    if min(known) < 0:
        return ""
    better = " and ".join(numbers.percent(gain) for gain in known)
    return (
        f"training made {key.title} worse on neither side (better by {better} than the untrained "
        "base), so what was lost cannot be compared"
    )


def _gain(key: ScoreKey, row: Row) -> float | None:
    """By what share training made a score better; negative where it made it worse."""
    before, after = mean_score(row, replace(key, stage="before")), mean_score(row, key)
    score = next((found for r in row.finished if (found := key.find(r))), None)
    if not before or after is None or score is None:
        return None
    return (after / before - 1) * (-1 if score.direction == "lower" else 1)


def _scored(check: ScoreCheck, ground: Ground, sides: Sides) -> Leaning:
    """The difference of two rows on the score of a check."""
    key = ScoreKey.named(check.score)
    rows = (replace(sides.own, label="own"), replace(sides.other, label="other"))
    scores = [found for row in rows for r in row.finished if (found := key.find(r))]
    aligned = read_items(rows, key).aligned
    if aligned is None or len(set(aligned.labels)) < len(rows):
        return out_of_reach(_unpaired(key, sides))
    scale = make_scale(scores, check.margin)
    effect = make_sample(aligned, scale).paired("own", "other")
    if effect is None:
        return out_of_reach("no seed in common")
    return _judged(check, effect, scale, ground.correction(sides.own, sides.other), sides)


def _unpaired(key: ScoreKey, sides: Sides) -> str:
    """Why a score of two rows cannot be paired: one has not taken it, or on other items."""
    taken = partial(_has_taken, key)
    lacking = who_lacks((sides.own, sides.other), taken)
    if lacking:
        return f"{key.title} was not taken by {lacking}"
    return f"{key.title} was taken by both, but not on the same items"


def _has_taken(key: ScoreKey, row: Row) -> bool:
    return any(key.find(record) is not None for record in row.finished)


def _judged(
    check: ScoreCheck | FormCheck,
    effect: Effect,
    scale: Scale,
    correction: LookCorrection,
    sides: Sides | None,
) -> Leaning:
    worse_by = effect if scale.sign > 0 else effect.negated()
    shown = numbers.percent if scale.relative else _points
    text = f"{check.score} {shown(scale.difference(effect.estimate), signed=True)}"
    where = "" if sides is None else sides.where
    name = "" if check.score == USUAL else f"{ScoreKey.named(check.score).title} "
    if effect.obstacle:
        short = f"{name}{shown(scale.difference(effect.estimate), signed=True)}"
        why = "one training each" if effect.obstacle == "one training" else effect.obstacle
        decides = "three seeds or more" if effect.obstacle == "one training" else "more items"
        return Leaning("undecided", f"{text} ({why}){where}", decides, short)
    within = regions(check.says, scale.bound)
    errors = lean(worse_by.interval, within, correction.looks)
    error = correction.error(errors, within)
    low, high = (scale.difference(end) for end in effect.interval(error))
    text += f" [{shown(low, signed=True)}, {shown(high, signed=True)}]{said_of(error)}{where}"
    short = f"{name}{_interval(shown, scale, effect, error)}{said_of(error)}"
    text += f", {effect.seeds} seeds" if effect.noise.seeds is not None else ", items alone"
    if check.margin != USUAL_MARGIN:
        text += f", margin {shown(check.margin, signed=False)}"
    alone = errors.verdict()
    settles = _settles(worse_by, scale.bound) if alone == "undecided" else MORE
    return Leaning(alone, text, settles, short, errors)


def _interval(shown: Shown, scale: Scale, effect: Effect, error: float) -> str:
    """A difference with its interval, the unit said once."""
    low, high = (shown(scale.difference(end), signed=True) for end in effect.interval(error))
    middle = shown(scale.difference(effect.estimate), signed=True)
    return f"{middle} [{low.partition(' ')[0]}, {high.partition(' ')[0]}]"


def _settles(effect: Effect, bound: float) -> str:
    """What would show the difference that was measured to lie within the margin, at the least.

    An estimate outside of it leans to another verdict, for which no number is known.
    """
    room = bound - abs(effect.estimate)
    if room <= 0:
        return MORE
    found = needed(effect, room)
    ways = []
    if found.seeds is not None:
        ways.append(f"at least {found.seeds} seeds")
    if found.more_items is not None:
        ways.append(f"at least {found.more_items:.1f} times the items")
    return " or ".join(ways) or "more seeds and more items"


def _points(share: float, *, signed: bool) -> str:
    text = numbers.number(abs(share) * 100, digits=2)
    return f"{'−' if share < 0 else '+' if signed else ''}{text} points"


def compare_forms(check: FormCheck, ground: Ground) -> Leaning:
    """The difference of a variant's score in one form from that of the weights as trained."""
    arm = ground.find(check.variant, check.conditions)
    if arm is None or arm.row is None:
        return not_run([check.variant], check.conditions, (), ground.apart)
    key = ScoreKey.named(check.score)
    row = arm.with_score(replace(key, precision=check.form)).row or arm.row
    parts = [
        read_items([replace(row, label=name)], replace(key, precision=form)).aligned
        for name, form in (("own", check.form), ("other", "training"))
    ]
    joined = None if parts[0] is None or parts[1] is None else _beside(parts[0], parts[1])
    if joined is None:
        return out_of_reach(f"{arm.name} was not scored as {check.form}")
    scores = [found for record in row.finished if (found := key.find(record))]
    scale = make_scale(scores, check.margin)
    effect = make_sample(joined, scale).paired("own", "other")
    if effect is None:
        return out_of_reach("no seed in common")
    return _judged(check, effect, scale, ground.correction(row), None)


def _beside(first: Aligned, second: Aligned) -> Aligned | None:
    """The runs of both, where they have the same items."""
    if first.items != second.items or not np.array_equal(first.group, second.group):
        return None
    answers = None
    if first.answers is not None and second.answers is not None:
        answers = np.hstack([first.answers, second.answers])
    return Aligned(
        labels=(*first.labels, *second.labels),
        seeds=(*first.seeds, *second.seeds),
        trains=(*first.trains, *second.trains),
        numerator=np.hstack([first.numerator, second.numerator]),
        denominator=np.hstack([first.denominator, second.denominator]),
        group=first.group,
        answers=answers,
    )
