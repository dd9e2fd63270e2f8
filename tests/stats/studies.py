"""Studies: how often their conclusions are wrong at any look, and what looking early saves.

``python -m tests.stats.simulate --only studies`` prints the table that docs/statistics.md quotes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from harness.report.pairing import Aligned
from harness.spec.study import Seeds
from harness.studies.family import Family
from harness.studies.looks import FAR, Conclusion, follow
from harness.studies.rules import Rules
from harness.studies.steering import Decision
from tests.stats.simulate import scale_of
from tests.stats.worlds import REFERENCE, World, draw

ALPHA = 0.05
MARGIN = 0.01
MORE = 2  # seeds, and variants, that a person who meddles adds
INTERIM = 3  # seeds, when a person looks
SEEDS = Seeds(least=2, most=5)
MIXES = {
    "items": {"seed_sd": 0.002, "item_sd": 0.05, "both_sd": 0.005},
    "both": {"seed_sd": 0.01, "item_sd": 0.01, "both_sd": 0.02},
    "seeds": {"seed_sd": 0.02, "item_sd": 0.005, "both_sd": 0.005},
}
# The margin is four standard errors of a difference, so that equal variants are found equivalent.
NEAR = {"seed_sd": 0.001, "item_sd": 0.0115, "both_sd": 0.003}
UNTRAINED = {"seed_sd": 0.0, "item_sd": 0.0125, "both_sd": 0.0}


@dataclass(frozen=True)
class Steered:
    """What a person does with a study: variants dropped, those added, and seeds allowed on top."""

    dropped: frozenset[str] = frozenset()
    added: tuple[str, ...] = ()
    more: int = 0

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """As the study's log has them: everything is added before more seeds are allowed."""
        kinds = [("add", label) for label in self.added]
        if self.more:
            kinds.append(("more_seeds", str(self.more)))
        return tuple(
            Decision(time=f"2026-01-01T00:{minute:02}:00+00:00", kind=kind, value=value)
            for minute, (kind, value) in enumerate(kinds)
        )


@dataclass(frozen=True)
class Made:
    """One experiment: the runs of all variants at all seeds, and which are planned."""

    world: World
    aligned: Aligned
    planned: tuple[str, ...]
    seeds: Seeds

    def follow(self, done: Steered, ready: int = FAR) -> dict[str, Conclusion]:
        """What the study concludes by its first ``ready`` seeds, after a person's decisions."""
        rules = Rules.of(self.seeds, ALPHA, done.decisions)
        counts = {label: INTERIM if label in done.dropped else ready for label in self.world.labels}
        scale = scale_of(self.world, MARGIN)
        make = lambda labels: Family(  # noqa: E731
            self.aligned, scale, REFERENCE, labels, counts, done.dropped
        )
        found = follow(make(self.planned), rules.planned).conclusions
        for label, rule in zip(done.added, rules.added, strict=True):
            found |= follow(make((label,)), rule).conclusions
        return found


Person = Callable[[Made], Steered]


def leaves_it(_: Made) -> Steered:
    """The study goes its way."""
    return Steered()


def meddles(made: Made) -> Steered:
    """Drop all but the most promising at an early look, add variants and seeds.

    This is the worst that can be done where a dropped variant leaves its error to the others.
    """
    interim = made.follow(Steered(), INTERIM)
    if any(one.decided for one in interim.values()):
        return Steered()
    promise = {label: 1.0 if one.difference is None else one.difference.p_value or 0.0
               for label, one in interim.items()}  # fmt: skip
    kept = min(promise, key=promise.__getitem__)
    others = [label for label in made.world.labels if label not in (REFERENCE, *made.planned)]
    return Steered(frozenset(interim) - {kept}, tuple(others), MORE)


@dataclass
class Count:
    """Over many studies: families with a wrong conclusion; of the first variant, which alone may
    differ, how often it was found worse and its seeds."""

    tries: int = 0
    wrong: int = 0
    found: int = 0
    seeds: int = 0

    def add(self, world: World, found: dict[str, Conclusion]) -> None:
        """Count one study."""
        bound = scale_of(world, MARGIN).bound
        verdicts = {label: one.difference.verdict for label, one in found.items() if one.difference}
        self.tries += 1
        self.wrong += any(
            is_wrong(verdict, world.truth(label), bound) for label, verdict in verdicts.items()
        )
        self.found += verdicts["variant0"] == "worse"
        self.seeds += found["variant0"].seeds


def is_wrong(verdict: str, worse_by: float, bound: float) -> bool:
    """Whether a verdict contradicts the true difference; "undecided" never does."""
    if verdict == "equivalent":
        return abs(worse_by) >= bound
    return (verdict == "worse" and worse_by <= 0) or (verdict == "better" and worse_by >= 0)


def studies(
    world: World, tries: int, seed: int, seeds: Seeds = SEEDS, person: Person = leaves_it
) -> Count:
    """Studies through the code that a study goes through, given all seeds beforehand."""
    draws, count = np.random.default_rng(seed), Count()
    whole = replace(world, seeds=seeds.last if world.trains else 1)
    planned = tuple(label for label in world.labels if label != REFERENCE)
    if person is meddles:
        whole = replace(whole, seeds=seeds.last + MORE, variants=world.variants + MORE)
    for _ in range(tries):
        made = Made(whole, draw(whole, draws), planned, seeds)
        count.add(whole, made.follow(person(made)))
    return count


@dataclass(frozen=True)
class StudyCell:
    """A named world in which any conclusion may be wrong, and what a person does."""

    name: str
    world: World
    person: Person = leaves_it


def study_cells() -> Iterator[StudyCell]:
    """Variants that are all equal to the reference, or all worse by exactly the margin."""
    for mix, parts in MIXES.items():
        for variants in (4, 10, 24):
            world = World(clusters=60, variants=variants, **parts)  # type: ignore[arg-type]
            yield StudyCell(f"{mix} matter", world)
            if variants == 10:
                yield StudyCell(f"{mix} matter, meddled with", world, meddles)
    for variants in (4, 10, 24):
        world = World(clusters=60, variants=variants, **NEAR)  # type: ignore[arg-type]
        yield StudyCell("margin of 4 errors, trained", world)
        yield StudyCell("margin of 4 errors", untrained(variants))
        yield StudyCell("all at a margin of 4 errors", at_the_margin(variants))


def untrained(variants: int) -> World:
    """Untrained variants, all equal to the reference."""
    return World(clusters=60, variants=variants, trains=False, **UNTRAINED)  # type: ignore[arg-type]


def at_the_margin(variants: int) -> World:
    """Untrained variants, all worse than the reference by exactly the margin."""
    return replace(untrained(variants), difference=MARGIN, worse=variants)


def study_table(cells: Iterator[StudyCell], tries: int, seed: int) -> None:
    """Any wrong conclusion of a study; then the seeds of one clear difference."""
    print(f"{'cell':32s} variants  any wrong conclusion%")
    for number, cell in enumerate(cells):
        found = studies(cell.world, tries, seed + number, person=cell.person)
        limit = ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / tries)
        miss = "family" if found.wrong / tries > limit else ""
        share = 100 * found.wrong / tries
        print(f"{cell.name:32s} {cell.world.variants:8d}  {share:21.1f}  {miss}", flush=True)
    print(f"{'one variant that is worse, 2 to 6 seeds':40s} found%  seeds  seeds of a fixed number")
    for difference in (0.03, 0.1):
        for mix, parts in MIXES.items():
            world = World(clusters=60, variants=4, difference=difference, **parts)  # type: ignore[arg-type]
            power_line(f"by {difference:.0%}, {mix} matter", world, tries, seed)


def power_line(name: str, world: World, tries: int, seed: int) -> None:
    """Mean seeds until the difference is found, and the fixed number that finds it as often.

    That number lies between two whole ones where these find it more rarely and more often.
    """
    ours = studies(world, tries, seed, Seeds(least=2, most=6))
    fixed = [studies(world, tries, seed, Seeds(stop=count)).found for count in range(2, 9)]
    equal = float(np.interp(ours.found, np.maximum.accumulate(fixed), range(2, 9)))
    if ours.found in fixed:
        equal = float(2 + fixed.index(ours.found))
    print(
        f"{name:40s} {100 * ours.found / tries:6.1f}  {ours.seeds / tries:5.2f}  {equal:.2f}",
        flush=True,
    )
