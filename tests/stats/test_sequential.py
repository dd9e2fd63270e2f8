"""Looking after every round of seeds errs no more often than one look, and saves seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harness.spec.study import Seeds
from harness.studies.looks import FAR, Family, follow, restrict
from harness.studies.rules import Rules
from tests.stats.simulate import judge, scale_of
from tests.stats.worlds import REFERENCE, World, draw

TRIES = 100
MARGIN = 0.01
SEEDS = Seeds(least=2, most=6)
# Seeds and items both matter, as in short fine-tunings.
NULL = World(seeds=6, clusters=60, variants=4, seed_sd=0.01, item_sd=0.01, both_sd=0.02)


@dataclass
class Count:
    """Over many studies: families with a wrong conclusion; of the first variant, which alone may
    differ, how often it was found worse and its seeds."""

    wrong: int = 0
    found: int = 0
    seeds: int = 0


def sequential(world: World, tries: int, seed: int, seeds: Seeds = SEEDS) -> Count:
    """Studies through the code that a study goes through, given all seeds beforehand."""
    draws, scale, count = np.random.default_rng(seed), scale_of(world, MARGIN), Count()
    rule = Rules.of(seeds, 0.05).planned
    for _ in range(tries):
        aligned = draw(world, draws)
        labels = [label for label in world.labels if label != REFERENCE]
        found = follow(
            Family(aligned, scale, REFERENCE, labels, dict.fromkeys(world.labels, FAR)), rule
        ).conclusions
        verdicts = {label: one.difference.verdict for label, one in found.items() if one.difference}
        count.wrong += any(
            verdict in ("better", "worse")
            if world.truth(label) == 0
            else verdict == "equivalent" and abs(world.truth(label)) >= scale.bound
            for label, verdict in verdicts.items()
        )
        count.found += verdicts["variant0"] == "worse"
        count.seeds += found["variant0"].seeds
    return count


def naive(world: World, tries: int, seed: int) -> Count:
    """The same, but stopping at the first look whose own 5 % is passed."""
    draws, scale, count = np.random.default_rng(seed), scale_of(world, MARGIN), Count()
    for _ in range(tries):
        aligned = draw(world, draws)
        called: set[str] = set()
        for seeds in range(2, world.seeds + 1):
            part = restrict(aligned, dict.fromkeys(world.labels, seeds))
            _, differences = judge(part, scale)
            called |= {
                label for label, one in differences.items() if one.verdict in ("better", "worse")
            }
        count.wrong += any(world.truth(label) == 0 for label in called)
        count.found += "variant0" in called
    return count


def bound(share: float) -> float:
    """Three Monte-Carlo standard errors above ``share``."""
    return TRIES * share + 3 * math.sqrt(TRIES * share * (1 - share))


def test_any_wrong_conclusion_over_all_looks_is_rare_and_was_not_for_naive_looks() -> None:
    ours, theirs = sequential(NULL, TRIES, seed=21), naive(NULL, TRIES, seed=21)
    assert ours.wrong <= bound(0.05)
    assert theirs.wrong > ours.wrong


def test_a_difference_at_the_margin_is_rarely_called_equivalent() -> None:
    world = World(seeds=6, clusters=60, variants=4, seed_sd=0.004, item_sd=0.01, both_sd=0.01,
                  difference=math.log1p(MARGIN))  # fmt: skip
    ours = sequential(world, TRIES, seed=22)
    assert ours.wrong <= bound(0.05)


def test_a_clear_difference_is_found_with_fewer_seeds_than_a_fixed_number() -> None:
    world = World(seeds=6, clusters=60, variants=4, seed_sd=0.004, item_sd=0.01, both_sd=0.01,
                  difference=0.03)  # fmt: skip
    ours = sequential(world, TRIES, seed=23)
    fixed = sequential(world, TRIES, seed=23, seeds=Seeds(stop=6, least=2, most=6))
    print(ours, fixed)
    assert ours.found >= 0.9 * fixed.found
    assert ours.seeds < 0.8 * fixed.seeds
