"""Figures: what the runs of the largest ground show about all methods and schemes together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from harness import numbers
from harness.report.blocks import Figure
from harness.report.claims.ground import Ground, VariantRuns
from harness.report.figures.canvas import Axis
from harness.report.figures.rates import rate_line, rate_panels
from harness.report.figures.scatter import Point, Scatter
from harness.report.gains import mean_score
from harness.report.pairing import ScoreKey
from harness.report.rows import Row
from harness.report.scoring import Scoring, make_scoring

QUALITY = ScoreKey("held_out", "perplexity", "training")
FORGETTING = ScoreKey("wikitext2", "bits_per_byte", "training")
REFERENCES = ("lora_bf16", "lora")
FULL = "full_finetune"
MARGIN = 0.01


@dataclass(frozen=True)
class _Compared:
    """Rows of a ground named by variant, and what they scored against the reference."""

    rows: Mapping[str, Row]
    quality: Scoring
    reference: str


def findings_figures(ground: Ground) -> Iterator[Figure]:
    """Quality against bytes, quality over learning rate, forgetting against learning."""
    rows = {name: replace(arm.row, label=name) for name, arm in ground.arms.items() if arm.row}
    reference = next((name for name in REFERENCES if name in rows), None)
    if reference is None:
        return
    quality = make_scoring(list(rows.values()), QUALITY, reference, MARGIN)
    compared = _Compared(rows, quality, reference)
    for found in (_bytes(compared), _rates(ground.arms, rows), _forgetting(compared)):
        if found is not None:
            yield found


def _bytes(compared: _Compared) -> Figure | None:
    """Held-out perplexity against the bytes of all weights, the adapter's with them."""
    known = {
        name: size
        for name, row in compared.rows.items()
        if name in compared.quality.values and (size := row.weight_bytes) is not None
    }
    if len(set(known.values())) < 2:
        return None
    values = compared.quality.values
    points = tuple(
        Point(
            label=name,
            mark=compared.rows[name].mark,
            x=size / 2**20,
            y=values[name].value,
            low=compared.quality.compared_interval(name)[0],
            high=compared.quality.compared_interval(name)[1],
            said=f"{name}: perplexity {numbers.number(values[name].value)}, {numbers.size(size)}",
        )
        for name, size in sorted(known.items())
    )
    best = min(points, key=lambda point: point.y)
    return Figure(
        "findings-bytes",
        "Held-out perplexity against the bytes of all weights, at the best rate where it was "
        f"run; bars are 95 % intervals of the difference from {compared.reference}",
        f"Held-out perplexity of {len(points)} variants against the bytes of their weights; "
        f"lowest: {best.label} ({numbers.number(best.y)})",
        Scatter(Axis("weights, MiB", "lower"), Axis("held-out perplexity", "lower"), points),
    )


def _rates(arms: Mapping[str, VariantRuns], rows: Mapping[str, Row]) -> Figure | None:
    """A panel for each variant: validation perplexity by rate, full fine-tuning's behind it."""
    every = [
        rate_line(name, rows[name].mark, sorted(arm.rates.items()))
        for name, arm in sorted(arms.items())
        if name in rows
    ]
    lines = [line for line in every if len(line.x) > 2]
    if len(lines) < 2:
        return None
    told = "; ".join(f"{line.label} best at {arms[line.label].best_rate:g}" for line in lines)
    reference = FULL if any(line.label == FULL for line in lines) else None
    behind = "; full fine-tuning's curve is grey in every panel" if reference else ""
    return Figure(
        "findings-rates",
        f"Validation perplexity by learning rate, one seed a rate{behind}",
        f"Validation perplexity by learning rate: {told}",
        rate_panels(lines, reference),
    )


def _forgetting(compared: _Compared) -> Figure | None:
    """How much worse unrelated text became, against how much better held-out replies did."""
    other = {name: mean_score(row, FORGETTING) for name, row in compared.rows.items()}
    own = {name: value.value for name, value in compared.quality.values.items()}
    points = tuple(
        Point(
            label=name,
            mark=row.mark,
            x=100 * (1 - own[name] / own[base]),
            y=100 * (after / before - 1),
        )
        for name, row in sorted(compared.rows.items())
        if (base := _base_of(row, compared.rows)) is not None
        and (after := other[name]) is not None
        and (before := other[base]) is not None
        and name in own
        and base in own
    )
    if len(points) < 2:
        return None
    points = tuple(
        replace(
            point,
            said=f"{point.label}: perplexity of replies {-point.x:+.1f} %, "
            f"loss on unrelated text {point.y:+.2f} %",
        )
        for point in points
    )
    most = max(points, key=lambda point: point.x)
    return Figure(
        "findings-forgetting",
        "Change on unrelated text (WikiText-2; below 0: better than the untrained base) against "
        "what training brought on held-out replies, each variant against its own untrained base",
        f"Change on unrelated text for {len(points)} variants; {most.label} learned most "
        f"({numbers.number(most.x, digits=3)} %)",
        Scatter(
            Axis("perplexity of replies, % lower than the base's", "higher"),
            Axis("change on unrelated text, %; below 0: better than base"),
            points,
        ),
    )


def _base_of(row: Row, rows: Mapping[str, Row]) -> str | None:
    """The untrained variant whose weights a trained one started from."""
    if not row.plan.trains:
        return None
    return next(
        (
            name
            for name, other in rows.items()
            if not other.plan.trains and other.plan.quantization == row.plan.quantization
        ),
        None,
    )
