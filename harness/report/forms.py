"""Forms: what of a result is lost when it is merged, quantized again or written as GGUF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harness import numbers
from harness.records.record import RunRecord, Score
from harness.records.store import StoredRun
from harness.report.blocks import (
    Block,
    Caveat,
    Cell,
    Column,
    Section,
    Table,
    Tone,
    code,
    prose,
    unknown,
)
from harness.report.evidence import Evidence
from harness.report.pairing import read_table
from harness.report.rows import Row
from harness.spec.form import LOUD_NATS

TASK = "fidelity"
RESAMPLES = 2000


@dataclass(frozen=True)
class MeanOverSeeds:
    """A mean over seeds with its 95 % interval over clusters; no interval below two clusters."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Deployed:
    """One form of one row: how far it is from the model as trained, and what it takes."""

    label: str
    form: str
    divergence: MeanOverSeeds
    same_top: float | None
    largest: float | None
    perplexity: MeanOverSeeds | None
    bytes: float | None
    load_seconds: float | None
    tokens_per_second: float | None


def forms_section(evidence: Evidence) -> Section | None:
    """Every scored form beside the model as trained; nothing where no run scored a form."""
    found = [item for row in evidence.ranked for item in _forms_of(row)]
    if not found:
        return None
    loud = [item for item in found if item.divergence.value > LOUD_NATS]
    blocks: list[Block] = [_introduction(), _table(found)]
    blocks += [Caveat(_warning(item)) for item in loud]
    blocks += [_advice(row.label, found) for row in evidence.ranked if _has(row.label, found)]
    return Section("forms", "What you deploy", tuple(blocks))


def _has(label: str, found: Sequence[Deployed]) -> bool:
    return any(item.label == label for item in found)


def _introduction() -> Block:
    return prose(
        "Each form was written to disk, loaded from there and scored on the same items as "
        "the model as trained. The divergence is the mean over scored tokens of KL(as "
        f"trained, form); above {LOUD_NATS:g} nats it is more than rounding. Perplexity "
        "compares each form with the model as trained, item by item. Intervals are 95 %, "
        "over message trees. GGUF tensors were expanded and run as a plain model; llama.cpp "
        "also rounds the inputs of its matrix products."
    )


def _forms_of(row: Row) -> list[Deployed]:
    names = dict.fromkeys(
        score.precision for record in row.finished for score in record.scores if score.task == TASK
    )
    return [item for name in names if (item := _deployed(row, name)) is not None]


def _deployed(row: Row, form: str) -> Deployed | None:
    runs = [run for run in row.runs if run.record.status == "ok"]
    found = [s for run in runs if (s := run.record.score(TASK, "kl_divergence", "after", form))]
    divergence = _interval(runs, lambda record: _pair(record, TASK, "kl_divergence", form, None))
    if divergence is None:
        return None
    changes = _interval(
        runs, lambda record: _pair(record, "held_out", "perplexity", form, "training")
    )
    same = [
        s.value for run in runs if (s := run.record.score(TASK, "same_top_token", "after", form))
    ]
    return Deployed(
        label=row.label,
        form=form,
        divergence=divergence,
        same_top=float(np.mean(same)) if same else None,
        largest=_worst(found, "largest_difference"),
        perplexity=None if changes is None else _as_share(changes),
        bytes=_median(found, "bytes"),
        load_seconds=_median(found, "load_seconds"),
        tokens_per_second=_median(found, "tokens_per_second"),
    )


Pair = tuple[Score, Score | None]


def _pair(record: RunRecord, task: str, metric: str, form: str, against: str | None) -> Pair | None:
    score = record.score(task, metric, "after", form)
    other = None if against is None else record.score(task, metric, "after", against)
    if score is None or (against is not None and other is None):
        return None
    return score, other


def _interval(
    runs: Sequence[StoredRun], choose: Callable[[RunRecord], Pair | None]
) -> MeanOverSeeds | None:
    """The mean over runs of a ratio of sums, or of its difference from another score's."""
    sums = [
        found
        for run in runs
        if (pair := choose(run.record)) is not None and (found := _sums(run, pair)) is not None
    ]
    if not sums:
        return None
    value = float(np.mean([above.sum() / below.sum() for above, below in sums]))
    sizes = {len(above) for above, _ in sums}
    if len(sizes) > 1 or max(sizes) < 2:
        return MeanOverSeeds(value)
    size = max(sizes)
    drawn = np.random.default_rng(0).multinomial(size, np.full(size, 1 / size), size=RESAMPLES)
    ratios = np.mean([(drawn @ above) / (drawn @ below) for above, below in sums], axis=0)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return MeanOverSeeds(value, float(low), float(high))


Sums = tuple[np.ndarray, np.ndarray]


def _sums(run: StoredRun, pair: Pair) -> Sums | None:
    """Numerators (less those of the other score) and denominators by cluster, in name order."""
    tables = [
        None if score.items is None else read_table(run.folder.path / score.items)
        for score in pair
        if score is not None
    ]
    first = tables[0]
    if first is None or tables[-1] is None or first["item"] != tables[-1]["item"]:
        return None
    _, which = np.unique(np.asarray(first["cluster"]), return_inverse=True)
    above = np.asarray(first["numerator"], float)
    if len(tables) > 1:
        above = above - np.asarray(tables[-1]["numerator"], float)
    return np.bincount(which, above), np.bincount(which, np.asarray(first["denominator"], float))


def _as_share(found: MeanOverSeeds) -> MeanOverSeeds:
    """A difference of log-perplexities as a relative change."""
    low, high = (None if end is None else float(np.expm1(end)) for end in (found.low, found.high))
    return MeanOverSeeds(float(np.expm1(found.value)), low, high)


def _values(scores: Sequence[Score], key: str) -> list[float]:
    found = [score.details.get(key) for score in scores]
    return [float(value) for value in found if isinstance(value, int | float)]


def _median(scores: Sequence[Score], key: str) -> float | None:
    values = _values(scores, key)
    return float(np.median(values)) if values else None


def _worst(scores: Sequence[Score], key: str) -> float | None:
    return max(_values(scores, key), default=None)


def _table(found: Sequence[Deployed]) -> Table:
    columns = (
        Column("variant", number=False),
        Column("form", number=False),
        Column("divergence", help="nats a token from the model as trained"),
        Column("same top token"),
        Column("largest difference", help="of two log-probabilities"),
        Column("perplexity", help="relative to the model as trained"),
        Column("on disk"),
        Column("load"),
        Column("tokens/s", help="greedy generation of one answer"),
    )
    return Table("forms", columns, tuple(_cells(item) for item in found))


def _cells(item: Deployed) -> tuple[Cell, ...]:
    tone: Tone = "bad" if item.divergence.value > LOUD_NATS else ""
    change = item.perplexity
    return (
        Cell(item.label, item.label, style="code"),
        Cell(item.form, item.form, style="code"),
        Cell(_with_ends(item.divergence, _nats), item.divergence.value, tone=tone),
        _cell(item.same_top, numbers.percent),
        _cell(item.largest, numbers.number),
        unknown() if change is None else Cell(_with_ends(change, _percent), change.value),
        _cell(item.bytes, numbers.size),
        _cell(item.load_seconds, numbers.duration),
        _cell(item.tokens_per_second, numbers.number),
    )


def _cell(value: float | None, write: Callable[[float], str]) -> Cell:
    return unknown() if value is None else Cell(write(value), value)


def _nats(value: float) -> str:
    return f"{value:.2g}"


def _percent(value: float) -> str:
    return numbers.percent(value, signed=True)


def _with_ends(found: MeanOverSeeds, write: Callable[[float], str]) -> str:
    if found.low is None or found.high is None:
        return write(found.value)
    return f"{write(found.value)} ({write(found.low)} to {write(found.high)})"


def _warning(item: Deployed) -> str:
    return (
        f"{item.label} as {item.form} is not the model that was trained and ranked here: its "
        f"next-token distributions differ by {item.divergence.value:.2g} nats a token, more than "
        "rounding. Rank by this form's own scores if it is what you deploy."
    )


def advise(row: Row) -> str | None:
    """Which of its scored forms to deploy a row as; None where it has none."""
    found = _forms_of(row)
    if not found:
        return None
    best = _smallest(found)
    if best is None:
        return (
            f"No scored form of {row.label} stays within {LOUD_NATS:g} nats a token of the model "
            "as trained: deploy the adapter on the base it was trained on."
        )
    return (
        f"Deploy it as {best.form}: of its scored forms within {LOUD_NATS:g} nats a token of the "
        f"model as trained it is the smallest, {numbers.size(best.bytes)} on disk."
    )


def _smallest(found: Sequence[Deployed]) -> Deployed | None:
    """The smallest form that is shown to stay within the bound."""
    close = [
        item
        for item in found
        if item.bytes is not None and (item.divergence.high or item.divergence.value) <= LOUD_NATS
    ]
    return min(close, key=lambda item: item.bytes or 0.0, default=None)


def _advice(label: str, found: Sequence[Deployed]) -> Block:
    """The smallest form within the bound, or that there is none."""
    best = _smallest([item for item in found if item.label == label])
    if best is None:
        return prose(
            code(label), ": no scored form stays within the bound; deploy the adapter on the base "
            "it was trained on.", bullet=True,
        )  # fmt: skip
    return prose(
        code(label), ": ", code(best.form), " is the smallest scored form that stays within the "
        f"bound ({numbers.size(best.bytes)} on disk).", bullet=True,
    )  # fmt: skip
