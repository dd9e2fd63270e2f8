"""Overview: all variants of a ground on one score, as figures take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from harness import numbers
from harness.report.claims.ground import Ground
from harness.report.families import family_key, family_mark
from harness.report.figures.canvas import Mark
from harness.report.figures.forest import Estimate
from harness.report.pairing import ScoreKey
from harness.report.rows import Row
from harness.report.scoring import Scoring, make_scoring

QUALITY = ScoreKey("held_out", "perplexity", "training")
REFERENCES = ("lora_bf16", "lora")
MARGIN = 0.01
MOST_IN_A_PLANE = 8  # of ten, two or three cover each other; more variants stand in rows


@dataclass(frozen=True)
class Overview:
    """Rows of a ground named by variant, and what they scored against the reference."""

    rows: Mapping[str, Row]
    quality: Scoring
    reference: str

    @property
    def many(self) -> bool:
        """Whether there are too many for a plane."""
        return len(self.rows) > MOST_IN_A_PLANE

    def key(self, names: list[str]) -> tuple[tuple[Mark, str], ...]:
        """What the marks of these variants say, where they are those of families."""
        return family_key(self.rows[name].plan for name in names) if self.many else ()


def make_overview(ground: Ground) -> Overview | None:
    """All rows of a ground at their best rates; None where there is no LoRA to compare with."""
    rows = {name: replace(arm.row, label=name) for name, arm in ground.arms.items() if arm.row}
    reference = next((name for name in REFERENCES if name in rows), None)
    if reference is None:
        return None
    if len(rows) > MOST_IN_A_PLANE:
        rows = {name: replace(row, mark=family_mark(row.plan)) for name, row in rows.items()}
    return Overview(rows, make_scoring(list(rows.values()), QUALITY, reference, MARGIN), reference)


def change(scoring: Scoring, label: str, reference: str, digits: int = 2) -> Estimate | None:
    """By how many per cent a score differs from the reference's; None where it was not taken.

    Its text has that many decimals and no unit. Without scores of items there is no interval.
    """
    found = scoring.differences.get(label)
    if found is not None and found.low is not None and found.high is not None:
        shares = found.estimate, found.low, found.high
        value, low, high = (signed_percent(share, digits) for share in shares)
        estimate, lower, upper = (100 * share for share in shares)
        return Estimate(estimate, lower, upper, f"{value} [{low}, {high}]")
    own, base = (scoring.values.get(name) for name in (label, reference))
    if own is None or base is None:
        return None
    share = own.value / base.value - 1 if found is None else found.estimate
    return Estimate(100 * share, text=signed_percent(share, digits))


def signed_percent(share: float, digits: int) -> str:
    """A share in per cent with its sign and that many decimals, without the unit."""
    return numbers.percent(share, signed=True, digits=digits).removesuffix(" %")
