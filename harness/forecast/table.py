"""Table: what several variants are predicted to need, side by side, and what makes one fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import numbers
from harness.forecast.duration import expected_seconds, validation_seconds
from harness.forecast.memory import MOST_ROWS, largest_batch, predict, room_needed
from harness.forecast.wording import said_rows
from harness.records.record import MemoryPrediction
from harness.spec.gpus import parse_memory
from harness.spec.plan import Plan
from harness.spec.variant import Quantization
from harness.train.schedule import MicroBatch
from harness.weights.shape import count_plan

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

GIB = 1 << 30
PHASES = {
    "load": "load",
    "score_base": "score\nbase",
    "train": "train",
    "validate": "vali-\ndate",
    "score": "score",
}
"""Phases that are predicted, and the headings of their columns."""
UNKNOWN = "–"
STATE_BYTES = 12  # a trained weight, its gradient and its optimizer's state, at the least
SHORTEST = 64  # tokens: shorter rows hold hardly a question with its answer


@dataclass(frozen=True)
class Forecast:
    """What a variant needs; None where it is not known or does not apply.

    ``longest`` is the longest row in tokens, ``room`` is what there is, ``needed`` includes the
    driver's memory, ``rows`` is the largest micro-batch that fits.
    """

    plan: Plan
    prediction: MemoryPrediction | None
    needed: int | None
    room: int | None
    rows: int | None
    seconds: float | None
    longest: int | None = None

    @property
    def fits(self) -> bool | None:
        """Whether the whole run fits."""
        if self.needed is None or self.room is None:
            return None
        return self.needed <= self.room


def forecast(
    plan: Plan,
    memory: str = "",
    runs: Path = Path("reports/runs"),
    largest: MicroBatch | None = None,
) -> Forecast:
    """Predict one plan on its device, or within ``memory``, for rows as large as ``largest``.

    Raises:
        UserError: ``memory`` is not an amount of memory.
    """
    room = parse_memory(memory) if memory else plan.device.memory_bytes
    prediction = predict(plan, largest)
    return Forecast(
        plan=plan,
        longest=None if largest is None else largest.longest,
        prediction=prediction,
        needed=None if prediction is None else room_needed(plan, prediction.peak_bytes),
        room=room,
        rows=None if room is None or prediction is None else largest_batch(plan, room),
        seconds=_seconds(plan, runs),
    )


def _seconds(plan: Plan, runs: Path) -> float | None:
    """Seconds of training and of the validations that interrupt it; None if either is unknown."""
    if not plan.trains:
        return None
    training = expected_seconds(plan, runs)
    validating = validation_seconds(plan, runs) if plan.validation.every else 0.0
    return None if training is None or validating is None else training + validating


def reference_of(forecasts: Sequence[Forecast]) -> Forecast | None:
    """What the others are compared with: the first trained variant on an unquantized base."""
    trained = [item for item in forecasts if item.plan.trains and item.needed is not None]
    whole = [item for item in trained if item.plan.quantization.type == "none"]
    adapters = [item for item in whole if item.plan.method == "adapter"]
    return next(iter(adapters or whole or trained), None)


def forecast_table(forecasts: Sequence[Forecast]) -> RenderableType:
    """One row a variant: memory by phase, whether it fits, time, and what it saves."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    plan, reference = forecasts[0].plan, reference_of(forecasts)
    room = forecasts[0].room
    kind = "allocated" if plan.device.kind == "cuda" else "resident"
    into = "" if room is None else f", to fit into {numbers.size(room)}"
    caption = f"GiB, {kind}, predicted; micro-batch: the most rows of full length that fit"
    if reference is not None:
        caption += f"; saved: compared with {reference.plan.variant}"
    table = Table(
        title=Text(f"{plan.model.name} on {plan.device.name}{into}"),
        caption=Text(caption),
        title_justify="left",
        padding=(0, 1),
        box=None,
    )
    phases = [name for name in PHASES if name != "validate" or _any_validates(forecasts)]
    _add_columns(table, phases)
    for item in forecasts:
        table.add_row(*(Text(cell) for cell in _cells(item, reference, phases)))
    return Group(table, *(Text(line) for line in _remarks(forecasts)))


def _any_validates(forecasts: Sequence[Forecast]) -> bool:
    return any(item.prediction and "validate" in item.prediction.by_phase for item in forecasts)


def _add_columns(table: Table, phases: Sequence[str]) -> None:
    table.add_column("variant", overflow="fold")
    for title in (*(PHASES[name] for name in phases), "needs"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("fits")
    for title in ("micro-\nbatch", "time", "saved"):
        table.add_column(title, justify="right", no_wrap=True)


def _cells(item: Forecast, reference: Forecast | None, phases: Sequence[str]) -> list[str]:
    predicted = item.prediction.by_phase if item.prediction is not None else {}
    fits = {True: "yes", False: "no", None: UNKNOWN}[item.fits]
    more = "≥ " if item.rows == MOST_ROWS else ""
    rows = UNKNOWN if item.rows is None else f"{more}{item.rows or 'none'}"
    return [
        item.plan.variant,
        *(_number(predicted.get(name)) for name in phases),
        _number(item.needed),
        fits,
        rows,
        UNKNOWN if item.seconds is None else f"{item.seconds / 60:.1f} min",
        _saved(item, reference),
    ]


def _saved(item: Forecast, reference: Forecast | None) -> str:
    if reference is None or reference is item or item.needed is None or not reference.needed:
        return UNKNOWN
    return f"{100 * (1 - item.needed / reference.needed):.0f} %".replace("-", "−")


def _remarks(forecasts: Sequence[Forecast]) -> Iterator[str]:
    """Settings that were replaced, each once, and what makes a variant fit that does not."""
    trained = [item for item in forecasts if item.plan.trains]
    if trained:
        rows = said_rows(trained[0].plan, max(item.longest or 0 for item in trained))
        yield f"train is predicted for {rows}"
    if any(item.seconds is None for item in trained):
        yield "time is not known before a run of the same kind has ended on a device like this"
    replaced = {str(item): None for one in forecasts for item in one.plan.substitutions}
    yield from replaced
    for one in forecasts:
        if one.fits is False and (tip := hint(one.plan, one.room or 0)):
            yield f"{one.plan.variant} does not fit. {tip}"


def hint(plan: Plan, room: int) -> str:
    """The mildest change after which a training step of ``plan`` fits into ``room`` bytes.

    Each change is predicted before it is named.
    """
    if not plan.trains:
        smaller = "a quantized base" if plan.quantization.type == "none" else "a smaller model"
        return f"Try {smaller}."
    for change in _changes(plan, room):
        rows = largest_batch(change.plan, room)
        if rows is None:
            return ""
        divisors = [n for n in range(1, rows + 1) if plan.device_rows % n == 0]
        if not divisors:
            continue
        micro = min(max(divisors), plan.training.micro_batch_size)
        lower = micro < plan.training.micro_batch_size
        less = (f"--set training.micro_batch_size={micro}",) if lower else ()
        if words := " ".join((*change.settings, *less)):
            return f"A training step fits {change.base}with {words}."
        if change.base:
            return f"A training step fits {change.base.strip()}."
    if _is_oversized(plan, room):
        return "Try a smaller adapter: this one does not fit by itself."
    lighter = " an adapter such as lora_bf16, or" if plan.method == "full" else ""
    return f"Try{lighter} a smaller model: shorter sequences are not enough."


@dataclass(frozen=True)
class _Change:
    """A plan that needs less, and what has to be set for it; ``base`` names another base."""

    plan: Plan
    settings: tuple[str, ...] = ()
    base: str = ""


def _changes(plan: Plan, room: int) -> Iterator[_Change]:
    """Mildest first: checkpointing, a 4-bit base, then shorter and shorter sequences.

    An adapter larger than its model that does not fit by itself needs a lower rank: nothing else
    would help.
    """
    if _is_oversized(plan, room):
        yield from _lower_ranks(plan, room)
        return
    yield _Change(plan)
    lean, settings = plan, tuple[str, ...]()
    if not plan.training.gradient_checkpointing:
        lean = _with_training(plan, gradient_checkpointing=True)
        settings = ("--set training.gradient_checkpointing=true",)
        yield _Change(lean, settings)
    if plan.method == "adapter" and plan.quantization.type == "none":
        four_bits = lean.model_copy(update={"quantization": Quantization(type="nf4")})
        yield _Change(four_bits, settings, "on a 4-bit base, such as that of qlora_nf4, ")
    length = plan.training.sequence_length // 2
    while length >= SHORTEST:
        shorter = _with_training(lean, sequence_length=length)
        yield _Change(shorter, (*settings, f"--set training.sequence_length={length}"))
        length //= 2


def _is_oversized(plan: Plan, room: int) -> bool:
    """Whether an adapter is larger than its model, and its training fits nowhere by itself."""
    if plan.adapter is None:
        return False
    counts = count_plan(plan)
    return 2 * counts.trainable > counts.total and STATE_BYTES * counts.trainable > room


def _lower_ranks(plan: Plan, room: int) -> Iterator[_Change]:
    """Ranks that are powers of two and may fit by their own bytes, the highest first."""
    rank = None if plan.adapter is None else plan.adapter.fields.get("r")
    if plan.adapter is None or not isinstance(rank, int):
        return
    highest = room * rank // (STATE_BYTES * count_plan(plan).trainable)
    for power in reversed(range(highest.bit_length())):
        adapter = plan.adapter.model_copy(update={"r": 1 << power})
        lower = plan.model_copy(update={"adapter": adapter})
        yield _Change(lower, (f"--set adapter.r={1 << power}",))


def _with_training(plan: Plan, **changes: object) -> Plan:
    return plan.model_copy(update={"training": plan.training.model_copy(update=changes)})


def _number(size: int | None) -> str:
    return UNKNOWN if size is None else f"{size / GIB:.2f}"
