"""The A/A check: a variant against itself at other seeds, through the same comparison."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.report.blocks import Prose
from harness.report.repeatability import check_against_itself
from harness.report.sample import Scale, make_sample
from tests.report.records import Made, build_from, write_runs
from tests.stats.worlds import World, draw

LOSS = Scale("exp", relative=True, direction="lower", unit="per token", margin=0.01)


def said(root: Path) -> str:
    noise = next(s for s in build_from(root).sections if s.key == "noise")
    return " ".join(block.text for block in noise.blocks if isinstance(block, Prose))


def test_four_seeds_are_split_in_three_ways(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("lora_bf16", seed=seed) for seed in range(4)])
    assert "1 variant compared with themselves at other seeds, 3 comparisons" in said(tmp_path)


def test_three_seeds_are_too_few(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("lora_bf16", seed=seed) for seed in range(3)])
    assert "A/A check: not done" in said(tmp_path)


def test_false_calls_are_as_rare_as_promised() -> None:
    world = World(seeds=6, clusters=24, seed_sd=0.02, item_sd=0.02, both_sd=0.02)
    draws = np.random.default_rng(3)
    found = [check_against_itself(make_sample(draw(world, draws), LOSS)) for _ in range(60)]
    called = sum(check.called for check in found if check)
    compared = sum(check.comparisons for check in found if check)
    assert compared == 60 * 5 * 10
    assert called / compared <= 0.07
    assert called > 0, "a check that never calls anything checks nothing"
