"""Hsu's comparison with the best: the true best is among those that may be it."""

from __future__ import annotations

import math

import numpy as np

from harness.report.contest import Contest, hold_contest
from harness.report.sample import make_sample
from tests.stats.simulate import MIXES, scale_of
from tests.stats.worlds import REFERENCE, World, draw

TRIES = 150
MARGIN = 0.03


def contests(world: World, seed: int) -> list[Contest]:
    """What many experiments say of all rows of a world together."""
    draws, scale = np.random.default_rng(seed), scale_of(world, MARGIN)
    samples = [make_sample(draw(world, draws), scale) for _ in range(TRIES)]
    return [hold_contest(sample, scale, world.labels) for sample in samples]


def test_the_best_is_among_those_that_may_be_it() -> None:
    """All are equally good but one that is worse: any of the others is as good as the best."""
    found = contests(World(seeds=3, clusters=60, difference=0.05, **MIXES["items"]), seed=21)
    missed = sum(REFERENCE not in one.may_be_best for one in found)
    assert missed / TRIES <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / TRIES)
    assert sum("variant0" in one.may_be_best for one in found) / TRIES < 0.5, "it is found out"


def test_a_row_that_is_worse_by_more_than_the_margin_is_not_called_near_the_best() -> None:
    world = World(seeds=3, clusters=300, difference=0.035, **MIXES["items"])
    called = sum("variant0" in one.near_best for one in contests(world, seed=22))
    assert called / TRIES <= 0.05


def test_one_training_takes_no_part() -> None:
    (found, *_) = contests(World(seeds=1, clusters=60, **MIXES["items"]), seed=23)
    assert (found.may_be_best, found.near_best) == ((), ())
    assert set(found.unjudged) == {REFERENCE, "variant0", "variant1", "variant2", "variant3"}
