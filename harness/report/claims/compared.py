"""Compared: the two variants of a ground that a claim compares, or why there are none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.report.claims.decide import Leaning
from harness.report.claims.ground import Ground, VariantRuns
from harness.report.pairing import ScoreKey
from harness.report.rows import Row
from harness.spec.claim import PairCheck, ScoreCheck, SpeedCheck

FEWEST_RATES = 3  # of a search: the best one with a neighbour on each side


@dataclass(frozen=True)
class Sides:
    """Two variants of a ground, each at its best rate where both were tuned.

    ``wanting`` says what is missing for a comparison at best rates, where one was sought, ``cut``
    which searches ended before a best rate could lie between others.
    """

    own: Row
    other: Row
    tuned: bool
    wanting: str = ""
    cut: str = ""

    @property
    def where(self) -> str:
        """Which rates were compared."""
        trained = self.own.plan.trains or self.other.plan.trains
        if not trained or not self.tuned:
            return "" if not trained else " at default rates"
        return f" at the best rates tried (not tuned: {self.cut})" if self.cut else " at best rates"


def sides_of(check: PairCheck, ground: Ground) -> Sides | Leaning:
    """The rows to compare: at best rates where both were tuned, else at default rates."""
    arms = arms_of(check, ground, held_out=True)
    if isinstance(arms, Leaning):
        return arms
    own, other = (_telling(arm, check) for arm in arms)
    rates = getattr(check, "rates", "")
    if rates != "default" and own.best is not None and other.best is not None:
        tuned = own.rates or other.rates
        return Sides(own.best, other.best, bool(tuned), _at_edge(own, other), _cut(own, other))
    if own.default is None or other.default is None or rates == "best":
        return out_of_reach(_without_rate((own, other), rates))
    wanting = "" if rates == "default" else _wanting(own, other)
    return Sides(own.default, other.default, tuned=False, wanting=wanting)


def _without_rate(arms: Sequence[VariantRuns], rates: str) -> str:
    """Which of two variants was not run at the kind of learning rate at which they are compared."""
    ways: dict[str, list[str]] = {}
    if rates != "default":
        ways["at its best learning rate"] = [arm.name for arm in arms if arm.best is None]
    if rates != "best":
        ways["at its own learning rate"] = [arm.name for arm in arms if arm.default is None]
    return "; ".join(f"not run {way}: {', '.join(names)}" for way, names in ways.items() if names)


def who_lacks(rows: Sequence[Row], has: Callable[[Row], bool]) -> str:
    """Names of the rows that lack something; empty where none does."""
    return " and ".join(dict.fromkeys(row.variant for row in rows if not has(row)))


def arms_of(check: PairCheck, ground: Ground, *, held_out: bool) -> list[VariantRuns] | Leaning:
    """Both sides of the first pair that was run, or which one was not.

    Args:
        check: the comparison.
        ground: the runs.
        held_out: whether trials alone are not enough.
    """

    def found(names: Sequence[str], conditions: Sequence[str]) -> VariantRuns | None:
        arm = ground.find(names, conditions)
        return None if arm is None or (held_out and arm.row is None) else arm

    pairs = [[found(names, check.conditions) for names in names_of] for names_of in check.choices]
    at = max(range(len(pairs)), key=lambda place: sum(arm is not None for arm in pairs[place]))
    arms = [arm for arm in pairs[at] if arm is not None]
    if len(arms) == len(pairs[at]):
        return arms
    if check.unmet and any(all(found(names, ()) for names in pair) for pair in check.choices):
        return out_of_reach(check.unmet)
    tried = {
        name: "at another learning rate only" if arm.rows else "on the validation split only"
        for name, arm in ground.arms.items()
        if held_out and arm.row is None
    }
    return not_run(check.choices[at], check.conditions, pairs[at], {**ground.apart, **tried})


def _telling(arm: VariantRuns, check: PairCheck) -> VariantRuns:
    """The runs in which what a check asks for was measured."""
    if isinstance(check, SpeedCheck):
        return arm.validated()
    return arm.with_score(ScoreKey.named(check.score)) if isinstance(check, ScoreCheck) else arm


def _at_edge(*arms: VariantRuns) -> str:
    """Which searches may have missed the best rate, since it lies at the end of what was tried."""
    open_ended = [
        f"{arm.name} (best at {arm.best_rate:g})"
        for arm in arms
        if arm.best_rate is not None and arm.best_rate in (min(arm.rates), max(arm.rates))
    ]
    return f"rates beyond the edge for {', '.join(open_ended)}" if open_ended else ""


def _cut(*arms: VariantRuns) -> str:
    """Which searches tried too few rates to have a best one between others."""
    few = [arm for arm in arms if arm.rates and len(arm.rates) < FEWEST_RATES]
    return ", ".join(f"{arm.name} at {len(arm.rates)} rates" for arm in few)


def _wanting(*arms: VariantRuns) -> str:
    """Which runs a study that tunes still lacks: at one rate for all, a ranking can be wrong."""
    if not any(arm.rates for arm in arms):
        return ""
    missing = [arm for arm in arms if arm.best is None]
    untuned = [arm.name for arm in missing if not arm.rates]
    unrun = [f"{arm.name} at {arm.best_rate:g}" for arm in missing if arm.best_rate is not None]
    found = []
    if untuned:
        found.append(f"a search of learning rates for {', '.join(untuned)}")
    if unrun:
        found.append(f"held-out runs of {', '.join(unrun)}, its best rate")
    return " and ".join(found)


def not_run(
    sides: Sequence[Sequence[str]],
    conditions: Sequence[str],
    found: Sequence[VariantRuns | None] = (),
    apart: Mapping[str, str] | None = None,
) -> Leaning:
    """That variants were not run; ``found`` says which of them were, ``apart`` how others were."""
    lacking = [
        names for place, names in enumerate(sides) if place >= len(found) or found[place] is None
    ]
    missing = [
        next((f"{name} (run {apart[name]})" for name in names if apart and name in apart), names[0])
        for names in lacking
    ]
    given = f" with {', '.join(conditions)}" if conditions else ""
    return out_of_reach(f"not run{given}: {', '.join(dict.fromkeys(missing))}")


def out_of_reach(why: str) -> Leaning:
    """That a claim cannot be judged here."""
    return Leaning("out of reach", why)
