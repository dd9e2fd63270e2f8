"""Worlds: made-up experiments whose truth is known, in the form that a report compares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from harness.report.pairing import Aligned, right_or_wrong, sums

REFERENCE = "reference"


@dataclass(frozen=True)
class World:
    """One cell of the simulation: how much of each noise there is, and what is true.

    Standard deviations are of one variant, on the scale of the loss (nats a token) or of the
    probit of a share. ``odd`` multiplies the first variant's seed deviation. ``difference`` is
    how much worse the first ``worse`` variants are than all others (in nats, or as a share).
    """

    kind: Literal["loss", "share"] = "loss"
    seeds: int = 3
    clusters: int = 60
    seed_sd: float = 0.01
    item_sd: float = 0.05
    both_sd: float = 0.02
    odd: float = 1.0
    tail: Literal["normal", "heavy"] = "normal"
    share: float = 0.5
    difference: float = 0.0
    worse: int = 1
    variants: int = 4
    trains: bool = True

    @property
    def labels(self) -> tuple[str, ...]:
        """The reference, then the variants; the first of these is the odd one."""
        return (REFERENCE, *(f"variant{number}" for number in range(self.variants)))

    def truth(self, label: str) -> float:
        """A variant minus the reference, on the additive scale."""
        worse = self.difference if label in self.labels[1 : 1 + self.worse] else 0.0
        return worse if self.kind == "loss" else -worse


@dataclass(frozen=True)
class Items:
    """Values of every item (items, rows, seeds), and the cluster of each item."""

    group: NDArray[np.intp]
    above: NDArray[np.float64]
    below: NDArray[np.float64]


def draw_items(world: World, draws: np.random.Generator) -> Items:
    """One experiment of this world, item by item."""
    group = _groups(world.clusters, draws)
    make = _losses if world.kind == "loss" else _answers
    return Items(group, *make(world, group, draws))


def draw(world: World, draws: np.random.Generator) -> Aligned:
    """One experiment of this world, as a report aligns it."""
    items = draw_items(world, draws)
    runs = len(world.labels) * world.seeds
    above = items.above.reshape(len(items.group), runs)
    below = items.below.reshape(len(items.group), runs)
    return Aligned(
        labels=tuple(label for label in world.labels for _ in range(world.seeds)),
        seeds=tuple(range(world.seeds)) * len(world.labels),
        trains=(world.trains,) * runs,
        numerator=sums(above, items.group),
        denominator=sums(below, items.group),
        group=items.group,
        answers=right_or_wrong(above, below),
    )


def _groups(clusters: int, draws: np.random.Generator) -> NDArray[np.intp]:
    """Clusters of one to four items."""
    return np.repeat(np.arange(clusters), draws.integers(1, 5, clusters))


def _noise(world: World, draws: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    if world.tail == "normal":
        return draws.standard_normal(shape)
    return draws.standard_t(3, shape) / math.sqrt(3)


def _parts(
    world: World, group: NDArray[np.intp], draws: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Noise of items, half of it shared within a cluster, and of seeds.

    Shapes (items, rows, seeds) and (rows, seeds).
    """
    items, rows = len(group), len(world.labels)
    clusters = int(group[-1]) + 1
    half = math.sqrt(0.5)
    item = half * _noise(world, draws, (clusters, rows, 1))[group]
    item = item + half * _noise(world, draws, (items, rows, 1))
    both = half * _noise(world, draws, (clusters, rows, world.seeds))[group]
    both = both + half * _noise(world, draws, (items, rows, world.seeds))
    seed = world.seed_sd * draws.standard_normal((rows, world.seeds))
    seed[1] *= world.odd
    return world.item_sd * item + world.both_sd * both, seed


def _losses(
    world: World, group: NDArray[np.intp], draws: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    tokens = draws.integers(20, 400, len(group)).astype(np.float64)[:, None, None]
    hard = 2 + 0.4 * draws.standard_normal((len(group), 1, 1))
    item, seed = _parts(world, group, draws)
    loss = hard + item + seed
    loss[:, 1 : 1 + world.worse] += world.difference
    return loss * tokens, np.broadcast_to(tokens, loss.shape).copy()


def _answers(
    world: World, group: NDArray[np.intp], draws: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Right where the item's difficulty, common to all rows, stays below a row's ability."""
    clusters = int(group[-1]) + 1
    hard = math.sqrt(0.3) * draws.standard_normal((clusters, 1, 1))[group]
    hard = hard + math.sqrt(0.7) * draws.standard_normal((len(group), 1, 1))
    item, seed = _parts(world, group, draws)
    right = np.empty(item.shape)
    for row, label in enumerate(world.labels):
        sd = world.seed_sd * (world.odd if row == 1 else 1.0)
        total = math.sqrt(1 + world.item_sd**2 + world.both_sd**2 + sd**2)
        ability = total * float(ndtri(world.share + world.truth(label)))
        right[:, row] = (hard + item + seed)[:, row] < ability
    return right, np.ones(right.shape)
