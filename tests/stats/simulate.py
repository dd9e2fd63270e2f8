"""Simulation: how often the report's statements are true, cell by cell, as a table.

Every experiment goes through the code that a report goes through: items, influences, paired
effects, moderation, corrections, verdicts. ``python -m tests.stats.simulate`` prints the
table; ``nox -s statistics`` calls it. tests/stats/test_simulate.py shows that records on
disk give the same verdicts as the arrays used here.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from harness.report.judging import Difference, adjust, compare_all
from harness.report.pairing import Aligned, ScoreKey
from harness.report.sample import Sample, Scale, make_sample
from harness.report.scoring import Scoring, with_differences
from harness.report.statistics.multiplicity import holm
from harness.report.statistics.noise import Noise
from tests.stats.worlds import REFERENCE, World, draw

GOALS = (0.93, 0.98)


def scale_of(world: World, margin: float) -> Scale:
    """The scale of the world's score."""
    if world.kind == "loss":
        return Scale("exp", True, "lower", "per token", math.expm1(margin))
    return Scale("identity", False, "higher", "fraction", margin, share=True, ceiling=1.0)


def judge(aligned: Aligned, scale: Scale) -> tuple[Sample, dict[str, Difference]]:
    """What the report says of one experiment."""
    sample = make_sample(aligned, scale)
    effects = compare_all(sample, REFERENCE)
    key = ScoreKey("task", "metric", "training")
    scoring = Scoring(key, scale, headline=True, values={}, excluded={}, effects=effects)
    adjusted = adjust(effects, dict.fromkeys(effects, scale.bound), holm)
    return sample, with_differences(scoring, adjusted).differences


@dataclass
class Tally:
    """Counts over the tries of one cell."""

    tries: int = 0
    printed: int = 0
    covered: int = 0
    odd_printed: int = 0
    odd_covered: int = 0
    families: int = 0
    equivalent: int = 0
    found: int = 0
    single_calls: int = 0

    def add(self, world: World, scale: Scale, differences: dict[str, Difference]) -> None:
        """Count one experiment."""
        self.tries += 1
        called = False
        for label, difference in differences.items():
            truth = world.truth(label)
            if difference.low is not None:
                effect = difference.worse_by
                low, high = effect.interval()
                inside = low <= truth * scale.sign <= high
                self.printed += 1
                self.covered += inside
                if label == "variant0":
                    self.odd_printed += 1
                    self.odd_covered += inside
            word = difference.verdict
            if truth == 0:
                called |= word in ("better", "worse")
            if label == "variant0":
                self.equivalent += word == "equivalent"
                self.found += difference.p_value is not None and difference.p_value < 0.05
                self.single_calls += word == "differs"
        self.families += called


def run(world: World, margin: float, tries: int, seed: int) -> Tally:
    """Many experiments of one world."""
    draws = np.random.default_rng(seed)
    scale, tally = scale_of(world, margin), Tally()
    for _ in range(tries):
        _, differences = judge(draw(world, draws), scale)
        tally.add(world, scale, differences)
    return tally


def rate(count: int, of: int) -> str:
    """A rate as per cent, or a dash."""
    return "–" if of == 0 else f"{100 * count / of:.1f}"


MIXES = {
    "items": {"seed_sd": 0.002, "item_sd": 0.06, "both_sd": 0.02},
    "both": {"seed_sd": 0.01, "item_sd": 0.05, "both_sd": 0.05},
    "seeds": {"seed_sd": 0.02, "item_sd": 0.02, "both_sd": 0.02},
}


@dataclass(frozen=True)
class Cell:
    """A named world with its margin."""

    name: str
    world: World
    margin: float = 0.01


def coverage_cells() -> Iterator[Cell]:
    """Identical variants on losses."""
    for seeds in (1, 2, 3, 5):
        for clusters in (8, 24, 60, 300):
            for tail in ("normal", "heavy"):
                for mix, parts in MIXES.items():
                    world = World(seeds=seeds, clusters=clusters, tail=tail, **parts)  # type: ignore[arg-type]
                    yield Cell(f"loss, {tail}, {mix} matter", world)
    for clusters in (8, 24, 60, 300):
        for tail in ("normal", "heavy"):
            world = World(
                seeds=1,
                clusters=clusters,
                tail=tail,
                seed_sd=0.0,
                trains=False,  # type: ignore[arg-type]
            )
            yield Cell(f"loss, {tail}, untrained", world)


def unequal_cells() -> Iterator[Cell]:
    """One variant with a multiple of the others' seed deviation."""
    for seeds in (2, 3, 5):
        for clusters in (24, 300):
            for odd in (1.0, 2.0, 3.0, 5.0):
                world = World(seeds=seeds, clusters=clusters, odd=odd, variants=6, **MIXES["seeds"])
                yield Cell(f"loss, seeds matter, one {odd:.0f}x", world)


def share_cells() -> Iterator[Cell]:
    """Shares of right answers."""
    for seeds, trains in ((1, False), (2, True), (3, True), (5, True)):
        for clusters in (8, 24, 60, 300):
            for share in (0.02, 0.5, 0.98):
                world = World(
                    kind="share",
                    seeds=seeds,
                    trains=trains,
                    clusters=clusters,
                    share=share,
                    seed_sd=0.1 if trains else 0.0,
                    item_sd=0.4,
                    both_sd=0.3,
                )
                yield Cell(f"share {share}" + ("" if trains else ", untrained"), world)


def coverage_table(cells: Iterator[Cell], tries: int, seed: int) -> None:
    """Coverage, family-wise error and false equivalents of identical variants."""
    print(f"{'cell':34s} seeds clusters  printed%  coverage%  first variant%  family error%")
    for number, cell in enumerate(cells):
        world = cell.world
        tally = run(world, cell.margin, tries, seed + number)
        misses = _misses(tally)
        line = (
            f"{cell.name:34s} {world.seeds:5d} {world.clusters:8d}  "
            f"{rate(tally.printed, tally.tries * world.variants):>8s}  "
            f"{rate(tally.covered, tally.printed):>9s}  "
            f"{rate(tally.odd_covered, tally.odd_printed):>14s}  "
            f"{rate(tally.families, tally.tries):>13s}  {misses}"
        )
        print(line, flush=True)


EDGE = 0.025


def margin_cells() -> Iterator[Cell]:
    """A variant that is worse by exactly the margin, or by more, where the margin is in reach."""
    for seeds, trains in ((1, False), (2, True), (3, True), (5, True)):
        for clusters in (8, 24, 60, 300):
            for mix in ("items", "seeds"):
                parts = MIXES[mix] if trains else {**MIXES[mix], "seed_sd": 0.0}
                spread = parts["item_sd"] ** 2 / clusters + parts["seed_sd"] ** 2 / seeds
                edge = 4 * math.sqrt(2 * spread)
                world = World(
                    seeds=seeds, trains=trains, clusters=clusters, difference=edge, **parts
                )
                yield Cell(f"loss at the margin, {mix} matter", world, edge)
            for difference in (0.01, 0.02, 0.05):
                world = World(
                    kind="share", seeds=seeds, trains=trains, clusters=clusters, share=0.97,
                    difference=difference, seed_sd=0.0, item_sd=0.05, both_sd=0.02,
                )  # fmt: skip
                yield Cell(f"share 0.97, loses {difference}, margin 0.01", world)
            world = World(
                kind="share", seeds=seeds, trains=trains, clusters=clusters, share=0.5,
                difference=0.1, seed_sd=0.0, item_sd=0.3, both_sd=0.2,
            )  # fmt: skip
            yield Cell("share 0.5, at the margin of 0.1", world, 0.1)


def margin_table(cells: Iterator[Cell], tries: int, seed: int) -> None:
    """How often a variant that is worse by the margin or more is called equivalent."""
    print(f"{'cell':40s} seeds clusters  false equivalent%")
    for number, cell in enumerate(cells):
        world = cell.world
        tally = run(world, cell.margin, tries, seed + number)
        limit = EDGE + 2 * math.sqrt(EDGE * (1 - EDGE) / tries)
        miss = "equivalent" if tally.equivalent / tries > limit else ""
        print(
            f"{cell.name:40s} {world.seeds:5d} {world.clusters:8d}  "
            f"{rate(tally.equivalent, tries):>17s}  {miss}",
            flush=True,
        )


def power_cells() -> Iterator[Cell]:
    """A true difference of a size that is found in some of the tries."""
    for seeds, trains in ((1, False), (2, True), (3, True), (5, True)):
        for clusters in (24, 60, 300):
            for mix in ("items", "seeds"):
                parts = MIXES[mix] if trains else {**MIXES[mix], "seed_sd": 0.0}
                spread = parts["item_sd"] ** 2 / clusters + parts["seed_sd"] ** 2 / seeds
                world = World(
                    seeds=seeds, trains=trains, clusters=clusters, variants=6,
                    difference=3 * math.sqrt(2 * spread), **parts,
                )  # fmt: skip
                yield Cell(f"loss, {mix} matter", world)
            world = World(
                kind="share", seeds=seeds, trains=trains, clusters=clusters, variants=6,
                seed_sd=0.0, item_sd=0.3, both_sd=0.2, difference=0.8 / math.sqrt(clusters),
            )  # fmt: skip
            yield Cell("share 0.5", world)


def power_table(cells: Iterator[Cell], tries: int, seed: int) -> None:
    """Power at an uncorrected 5 %, beside Student's test of the same experiments.

    Student's test takes the seeds alone (their differences hold all noise but that of the items,
    so it is honest only where seeds matter), or the items alone where nothing was trained.
    """
    print(f"{'cell':24s} seeds clusters  found%  found by items alone%  found by seeds alone%")
    for number, cell in enumerate(cells):
        world, draws = cell.world, np.random.default_rng(seed + number)
        scale = scale_of(world, cell.margin)
        counts = np.zeros(3)
        for _ in range(tries):
            sample, differences = judge(draw(world, draws), scale)
            counts += _found(sample, differences["variant0"])
        shown = [f"{100 * count / tries:.1f}" for count in counts]
        by_items = shown[1] if world.seeds == 1 else "–"
        by_seeds = shown[2] if world.seeds > 1 else "–"
        print(
            f"{cell.name:24s} {world.seeds:5d} {world.clusters:8d}  {shown[0]:>6s}  "
            f"{by_items:>21s}  {by_seeds:>21s}",
            flush=True,
        )


def _found(sample: Sample, difference: Difference) -> tuple[bool, bool, bool]:
    """Whether the report, Student's test of items and Student's test of seeds see a difference."""
    own, other = sample.columns("variant0"), sample.columns(REFERENCE)
    gaps = sample.values[own] - sample.values[other]
    noise = sample.between(own, other).noise
    items = Noise(noise.items, noise.item_freedom).p_value(abs(float(gaps.mean()))) < 0.05
    seeds = len(gaps) > 1 and float(stats.ttest_1samp(gaps, 0.0).pvalue) < 0.05
    return difference.p_value is not None and difference.p_value < 0.05, items, seeds


def _misses(tally: Tally) -> str:
    """What misses its goal by more than two Monte-Carlo standard errors."""
    found = []
    for name, count, of in (
        ("coverage", tally.covered, tally.printed),
        ("first", tally.odd_covered, tally.odd_printed),
    ):
        if of:
            share = count / of
            error = 2 * math.sqrt(0.05 * 0.95 / of)
            if not GOALS[0] - error <= share <= GOALS[1] + error:
                found.append(name)
    error = 2 * math.sqrt(0.05 * 0.95 / tally.tries)
    if tally.families / tally.tries > 0.05 + error:
        found.append("family")
    return " ".join(found)


def main() -> int:
    """Print the tables."""
    from tests.stats.studies import study_cells, study_table

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    print(f"seed {asked.seed}, {asked.tries} tries a cell")
    started = time.perf_counter()
    for name, cells, table in (
        ("coverage", coverage_cells, coverage_table),
        ("unequal", unequal_cells, coverage_table),
        ("share", share_cells, coverage_table),
        ("margin", margin_cells, margin_table),
        ("power", power_cells, power_table),
        ("studies", study_cells, study_table),
    ):
        if asked.only in name:
            table(cells(), asked.tries, asked.seed)
    print(f"{time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
