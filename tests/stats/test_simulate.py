"""Small versions of the simulation: bounds allow three Monte-Carlo standard errors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.report.records import Made, build_from, write_run
from tests.stats.simulate import MIXES, Tally, judge, run
from tests.stats.worlds import Items, World, draw, draw_items

TRIES = 250


def error(share: float, tries: int) -> float:
    return 3 * math.sqrt(share * (1 - share) / tries)


def check(tally: Tally, world: World) -> None:
    # Comparisons of one try share the reference, so each try counts as one.
    assert 0.93 - error(0.05, TRIES) <= tally.covered / tally.printed <= 1
    assert tally.families / TRIES <= 0.05 + error(0.05, TRIES)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_identical_variants_of_a_loss(mix: str, seeds: int) -> None:
    world = World(seeds=seeds, clusters=24, tail="heavy" if seeds == 3 else "normal", **MIXES[mix])
    check(run(world, 0.01, TRIES, seed=11), world)


@pytest.mark.parametrize("odd", [2.0, 5.0])
def test_a_noisier_variant_keeps_its_noise(odd: float) -> None:
    """Pooled seed variances once covered it in 88 and 74 of 100 tries."""
    world = World(seeds=3, clusters=24, odd=odd, variants=6, **MIXES["seeds"])
    tally = run(world, 0.01, TRIES, seed=12)
    assert tally.odd_covered / tally.odd_printed >= 0.93 - error(0.05, TRIES)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_identical_variants_of_a_share(share: float) -> None:
    world = World(kind="share", clusters=60, share=share, seed_sd=0.1, item_sd=0.4, both_sd=0.3)
    check(run(world, 0.01, TRIES, seed=13), world)


def test_one_training_gives_no_verdict_interval_or_equivalence() -> None:
    """Identical variants whose seeds differ were once called different in most tries."""
    world = World(seeds=1, **MIXES["seeds"])
    tally = run(world, 0.05, 50, seed=14)
    assert (tally.printed, tally.families, tally.equivalent) == (0, 0, 0)
    assert tally.single_calls > 0, "these trainings do differ on the items, and that is said"


@pytest.mark.parametrize(("clusters", "loss"), [(8, 0.05), (24, 0.05), (60, 0.02)])
def test_no_discordant_item_is_not_equivalence(clusters: int, loss: float) -> None:
    """With a margin of one point and a true loss beyond it, 28 to 64 of 100 once said equal."""
    world = World(
        kind="share", seeds=1, trains=False, clusters=clusters, share=0.97, difference=loss,
        seed_sd=0.0, item_sd=0.1, both_sd=0.0,
    )  # fmt: skip
    tally = run(world, 0.01, TRIES, seed=15)
    assert tally.equivalent / TRIES <= 0.025


def test_a_difference_is_found(tmp_path: Path) -> None:
    world = World(seeds=3, clusters=60, difference=0.06, **MIXES["items"])
    assert run(world, 0.01, 100, seed=16).found / 100 > 0.8


@pytest.mark.parametrize("kind", ["loss", "share"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_records_on_disk_give_the_verdicts_of_the_arrays(
    tmp_path: Path, kind: Literal["loss", "share"], seeds: int
) -> None:
    """The simulation skips files for speed; what it leaves out changes nothing."""
    world = World(kind=kind, seeds=seeds, clusters=24, difference=0.05, variants=3)
    items = draw_items(world, np.random.default_rng(5))
    variants = ("lora_bf16", "qlora_nf4", "qlora_nf4_dq", "qlora_fp4")
    for row, variant in enumerate(variants):
        for seed in range(seeds):
            _write(tmp_path, Made(variant, seed=seed), items, (row, seed), kind)
    evidence = build_from(tmp_path).evidence
    scoring = next(found for found in evidence.scorings if found.key.metric in METRICS[kind])
    _, expected = judge(draw(world, np.random.default_rng(5)), scoring.scale)
    assert len(scoring.differences) == 3
    for label, found in scoring.differences.items():
        twin = expected[f"variant{variants.index(label) - 1}"]
        assert found.estimate == twin.estimate
        assert (found.low, found.high, found.p_value) == (twin.low, twin.high, twin.p_value)
        assert found.obstacle == twin.obstacle
        if kind == "loss":  # a share is secondary there, and corrected with others
            assert found.verdict == twin.verdict


METRICS = {"loss": ("perplexity",), "share": ("acc",)}
FILES = {"loss": "held_out-perplexity-after-training", "share": "oasst_choice-acc-after-training"}


def _write(root: Path, made: Made, items: Items, at: tuple[int, int], kind: str) -> None:
    """A run in the harness's own format, with the world's items in place of its own."""
    folder = write_run(root, made)
    path = folder / "items" / f"{FILES[kind]}.parquet"
    assert path.is_file()
    table = {
        "item": [f"i{number:05d}" for number in range(len(items.group))],
        "cluster": [f"t{number:05d}" for number in items.group],
        "numerator": items.above[:, at[0], at[1] if items.above.shape[2] > 1 else 0],
        "denominator": items.below[:, at[0], at[1] if items.below.shape[2] > 1 else 0],
    }
    pq.write_table(pa.table(table), path)
