"""Figures: what the runs of the largest ground show about all methods and schemes together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

from harness.report.blocks import Figure
from harness.report.claims.forgetting import forgetting_figure
from harness.report.claims.ground import Ground, VariantRuns
from harness.report.claims.overview import Overview, make_overview
from harness.report.claims.quality import bytes_figure
from harness.report.families import family_place
from harness.report.figures.rates import rate_line, rate_panels
from harness.report.rows import Row

FULL = "full_finetune"


def findings_figures(ground: Ground) -> Iterator[Figure]:
    """Quality against bytes, quality over learning rate, forgetting against learning.

    They stand on markdown pages alone, so each has files for phones.
    """
    overview = make_overview(ground)
    if overview is None:
        return
    makers = (bytes_figure, partial(_rates, ground.arms), forgetting_figure)
    for make in makers:
        found = make(overview)
        if found is not None:
            yield replace(found, narrow=True)


def _rates(arms: Mapping[str, VariantRuns], overview: Overview) -> Figure | None:
    """A panel for each variant: validation perplexity by rate, full fine-tuning's behind it."""
    rows = overview.rows
    every = [
        rate_line(name, rows[name].mark, sorted(arms[name].rates.items()))
        for name in _in_families(rows, overview)
    ]
    lines = [line for line in every if len(line.x) > 2]
    if len(lines) < 2:
        return None
    full = arms[FULL].best_rate if any(line.label == FULL for line in lines) else None
    shifts = [_shift(arms[line.label].best_rate, full) for line in lines]
    told = "; ".join(
        f"{line.label} best at {arms[line.label].best_rate:g}{f' ({shift})' if shift else ''}"
        for line, shift in zip(lines, shifts, strict=True)
    )
    behind = (
        "; full fine-tuning's curve is grey in every panel, and × says how many times its best "
        "rate a variant's is, of the rates tried"
    )
    families = "; colours are those of the families in the other figures"
    return Figure(
        "findings-rates",
        "Validation perplexity by learning rate, one seed a rate"
        f"{behind if full else ''}{families if overview.many else ''}",
        f"Validation perplexity by learning rate: {told}",
        rate_panels(lines, FULL if full else None, shifts),
    )


def _in_families(rows: Mapping[str, Row], overview: Overview) -> list[str]:
    """Names in the order of their panels: where there are many, family after family."""
    if not overview.many:
        return sorted(rows)
    return sorted(rows, key=lambda name: (name != FULL, *family_place(rows[name].plan), name))


def _shift(rate: float | None, full: float | None) -> str:
    if rate is None or full is None or rate == full:
        return ""
    return f"× {float(f'{rate / full:.2g}'):g}"
