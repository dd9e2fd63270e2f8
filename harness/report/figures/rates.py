"""Rates: validation perplexity over the learning rate, as every search of rates is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from harness import numbers
from harness.report.figures.canvas import Axis, Mark
from harness.report.figures.lines import Line
from harness.report.figures.multiples import Multiples

X = Axis("learning rate, power of ten")
SHOWN_ABOVE_BEST = 1.15  # times the highest of the curves' least values: the rest is cut off


def rate_line(label: str, mark: Mark, tried: Iterable[tuple[float, float]]) -> Line:
    """A curve through (learning rate, validation loss), without the losses that are not finite."""
    fine = [(rate, loss) for rate, loss in tried if math.isfinite(loss)]
    return Line(
        label=label,
        mark=mark,
        x=tuple(math.log10(rate) for rate, _ in fine),
        y=tuple(math.exp(loss) for _, loss in fine),
    )


def rate_panels(
    lines: Sequence[Line],
    reference: str | None,
    notes: Sequence[str] = (),
    key: Sequence[tuple[Mark, str]] = (),
) -> Multiples:
    """A panel for each curve with its note, that of ``reference`` faint in all."""
    highest = max(min(line.y) for line in lines) * SHOWN_ABOVE_BEST
    y = Axis(f"validation perplexity (cut off at {numbers.number(highest)})")
    return Multiples(
        X,
        y,
        tuple(lines),
        reference,
        marked=True,
        highest=highest,
        notes=tuple(notes),
        key=tuple(key),
    )
