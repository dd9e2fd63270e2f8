"""Axes: every score and cost that a page can draw the trade-off over."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness import numbers
from harness.report.blocks import AxesChoice, Choosable, Quantity
from harness.report.decision import shipped_bytes
from harness.report.evidence import Evidence
from harness.report.figures.canvas import NARROW_LABEL, PALETTE
from harness.report.layout import shorten
from harness.report.rows import MEMORY_KINDS, Row
from harness.report.scoring import Scoring

SHAPES = ("circle", "square", "up", "diamond", "down", "plus")
BYTES = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
LONGEST_NAME = 30
STEP_TIME = "time in training steps"
Read = Callable[[Row], float | None]
Say = Callable[[float | None], str]


def axes_choice(evidence: Evidence, recommended: Row | None, first: str = "") -> AxesChoice | None:
    """Scores and costs of all scored rows.

    Shown at first are the primary score and the cost whose title begins with ``first``.
    """
    main = evidence.main
    rows = [] if main is None else [row for row in evidence.ranked if row.label in main.values]
    if not rows:
        return None
    scores = tuple(_score(scoring, rows) for scoring in evidence.scorings)
    costs = tuple(cost for cost in _costs(evidence, rows) if _tells(cost))
    labels = [row.label for row in rows]
    wide, narrow = shorten(labels, LONGEST_NAME), shorten(labels, NARROW_LABEL)
    choosable = tuple(
        Choosable(
            row.label,
            (wide[row.label], narrow[row.label]),
            PALETTE[row.mark.colour],
            SHAPES[min(row.mark.marker, len(SHAPES) - 1)],
            row.mark.fill,
            recommended=row is recommended,
        )
        for row in rows
    )
    at = [place for place, cost in enumerate(costs) if cost.title.startswith(first)]
    return AxesChoice(choosable, (*scores, *costs), x=len(scores) + at[0], y=0) if at else None


def _tells(quantity: Quantity) -> bool:
    """Whether it is known of two rows and not the same for all."""
    return len({value for value in quantity.values if value is not None}) > 1


def _score(scoring: Scoring, rows: Sequence[Row]) -> Quantity:
    values = [scoring.values.get(row.label) for row in rows]
    bounds = [scoring.compared_interval(row.label) for row in rows]
    return Quantity(
        title=scoring.key.title,
        better="lower" if scoring.scale.direction == "lower" else "higher",
        values=tuple(None if found is None else found.value for found in values),
        said=tuple(numbers.number(None if found is None else found.value) for found in values),
        low=tuple(low for low, _ in bounds),
        high=tuple(high for _, high in bounds),
    )


def _costs(evidence: Evidence, rows: Sequence[Row]) -> list[Quantity]:
    kind = evidence.memory_kind

    def here(read: Read) -> Read:
        """Known only of rows on the device whose costs are compared."""
        return lambda row: read(row) if row.label in evidence.costed else None

    peak = f"peak memory ({MEMORY_KINDS[kind]})"
    return [
        _bytes(peak, rows, here(lambda row: row.peak_bytes(kind))),
        _bytes("predicted peak memory", rows, here(lambda row: row.predicted_bytes)),
        _bytes("weights", rows, lambda row: row.weight_bytes),
        _bytes("bytes to ship", rows, shipped_bytes),
        _plain(f"{STEP_TIME}, s", rows, here(lambda row: row.step_seconds), numbers.duration),
        _plain("training time, s", rows, here(_trained("train")), numbers.duration),
        _plain("time of the whole run, s", rows, here(lambda row: row.seconds), numbers.duration),
        _plain("time to score, s", rows, here(_scoring), numbers.duration),
        _plain("training energy, J", rows, here(_energy), numbers.energy),
        _plain("trainable parameters", rows, lambda row: row.trainable or None, numbers.count),
        _plain("tokens/s in training", rows, here(_speed), numbers.number, better="higher"),
    ]


def _trained(phase: str) -> Read:
    return lambda row: row.phase_seconds(phase) if row.plan.trains else None


def _scoring(row: Row) -> float | None:
    return row.phase_seconds("score")


def _energy(row: Row) -> float | None:
    return row.energy_joules() if row.plan.trains else None


def _speed(row: Row) -> float | None:
    return row.tokens_per_second


def _bytes(title: str, rows: Sequence[Row], read: Read) -> Quantity:
    found = [read(row) for row in rows]
    most = max((value for value in found if value is not None), default=0)
    unit, factor = next(((u, f) for u, f in BYTES if most >= f), ("B", 1))
    return Quantity(
        title=f"{title}, {unit}",
        better="lower",
        values=tuple(None if value is None else value / factor for value in found),
        said=tuple(numbers.size(value) for value in found),
    )


def _plain(
    title: str, rows: Sequence[Row], read: Read, say: Say, better: str = "lower"
) -> Quantity:
    found = [read(row) for row in rows]
    return Quantity(
        title=title,
        better="higher" if better == "higher" else "lower",
        values=tuple(found),
        said=tuple(say(value) for value in found),
    )
