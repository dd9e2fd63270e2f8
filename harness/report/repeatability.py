"""Repeatability: every variant compared with itself at other seeds, which should find nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from harness.report.sample import Sample
from harness.report.statistics.effects import Effect

ALPHA = 0.05
FEWEST_SEEDS = 4
MOST_SPLITS = 10


@dataclass(frozen=True)
class Repeats:
    """How many comparisons of a variant with itself were made, and called different."""

    rows: int
    comparisons: int
    called: int


def check_against_itself(sample: Sample) -> Repeats | None:
    """An A/A check of every trained row with four seeds or more; None where there is none.

    A row's seeds are split into two halves that have none in common, in up to ten ways, and the
    halves are compared as two variants would be. Every difference called at 5 % is a false one.
    """
    rows = [row for row in sample.labels if _can_be_split(sample, row)]
    effects = [effect for row in rows for effect in _halves(sample, row)]
    judged = [effect for effect in effects if not effect.obstacle]
    if not judged:
        return None
    called = sum(effect.p_value < ALPHA for effect in judged)
    return Repeats(len(rows), len(judged), called)


def _can_be_split(sample: Sample, row: str) -> bool:
    return sample.trains(row) and len(sample.columns(row)) >= FEWEST_SEEDS


def _halves(sample: Sample, row: str) -> Iterator[Effect]:
    """Differences between disjoint halves of a row's runs; the last run is left out of an odd few.

    The first run stays in the first half, so that no split comes twice.
    """
    runs = sample.columns(row)
    first, *others = runs[: len(runs) - len(runs) % 2]
    splits = itertools.combinations(others, len(runs) // 2 - 1)
    for chosen in itertools.islice(splits, MOST_SPLITS):
        rest = [run for run in others if run not in chosen]
        yield sample.between([first, *chosen], rest)


def describe_check(sample: Sample | None) -> str:
    """The A/A check in words, or what it would need."""
    found = None if sample is None else check_against_itself(sample)
    if found is None:
        return (
            "A/A check: not done. It compares a variant with itself at other seeds and needs at "
            f"least {FEWEST_SEEDS} seeds of one variant."
        )
    variants = f"{found.rows} variant" + ("" if found.rows == 1 else "s")
    return (
        f"A/A check: {variants} compared with themselves at other seeds, {found.comparisons} "
        f"comparisons in all. {found.called} of them were called different at 5 %, all falsely; "
        f"about {0.05 * found.comparisons:.1f} are to be expected. Splits of one variant share "
        "runs, so the count varies more than that of independent comparisons."
    )
