"""Wording: a plan and its predicted costs for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness import numbers
from harness.errors import Unpredicted
from harness.forecast.duration import expected_seconds, scaled_seconds, validation_seconds
from harness.forecast.memory import (
    MOST_ROWS,
    NotRehearsed,
    largest_batch,
    predict,
    room_needed,
    settle_recomputation,
)
from harness.forecast.recomputation import keeps_what_fits
from harness.records.events import Silence
from harness.records.record import MemoryPrediction
from harness.spec.gpus import parse_memory
from harness.spec.plan import Plan
from harness.train.schedule import MicroBatch
from harness.weights.shape import ParameterCount, count_plan, transformers_config

if TYPE_CHECKING:
    from rich.console import RenderableType


def plan_report(
    plan: Plan,
    memory: str = "",
    runs: Path = Path("reports/runs"),
    largest: MicroBatch | None = None,
) -> RenderableType:
    """What a run of ``plan`` would need, and whether it fits into ``memory`` or the device's.

    The rows that are trained on are as large as ``largest``, or as the plan allows.

    The expected time comes from the runs below ``runs``.

    Raises:
        UserError: ``memory`` is not an amount of memory.
        InvalidFile: the model's TOML states no shape, or PEFT refuses the adapter.
    """
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    room = parse_memory(memory) if memory else plan.device.memory_bytes
    lines = list(_substitutions(plan))
    plan = _within(plan, room if memory else None)
    try:
        counts = count_plan(plan)
        lines += [*_counts(plan, counts), *_recomputation(plan, counts)]
    except Unpredicted as unknown:
        lines.append(f"parameters: not known before the run, since {unknown.what}")
    heard = _Heard()
    prediction = predict(plan, largest, heard)
    lines += [*heard.notes, *_verdict(plan, prediction, room)]
    if prediction is not None and plan.trains:
        rows = said_rows(plan, 0 if largest is None else largest.longest)
        lines.append(f"memory of training is predicted for {rows}")
    body = Group(
        *(Text(line) for line in [*lines, *_time(plan, runs)]),
        *(_tables(plan, prediction) if prediction is not None else ()),
    )
    title = Text(f"{plan.variant} on {plan.model.name}, {plan.device.name}", style="bold")
    return Group(title, Padding(body, (0, 0, 1, 2)))


def _counts(plan: Plan, counts: ParameterCount) -> Iterator[str]:
    share = 100 * counts.trainable / counts.total
    trained = f"{counts.trainable:,} trained ({share:.3g} %)" if plan.trains else "none trained"
    yield f"parameters: {counts.total:,}, {trained}"
    if counts.quantized:
        rest = counts.total - counts.trainable - counts.quantized
        bits = 8 * counts.quantized_bytes / counts.quantized
        yield (
            f"quantized: {counts.modules} linear layers, {counts.quantized:,} parameters at "
            f"{bits:.2f} bits ({plan.quantization.label}); {rest:,} of the base are not"
        )


def _within(plan: Plan, room: int | None) -> Plan:
    """``plan`` with ``room`` as what recomputation may fill, unless the plan says it itself."""
    if room is None or not keeps_what_fits(plan) or plan.training.memory_gib:
        return plan
    changes = {"memory_gib": room / 2**30}
    return plan.model_copy(update={"training": plan.training.model_copy(update=changes)})


def _recomputation(plan: Plan, counts: ParameterCount) -> Iterator[str]:
    """How many layers are computed again, where the plan leaves it to what there is room for."""
    if not (keeps_what_fits(plan) and plan.trains):
        return
    try:
        kept = settle_recomputation(plan, counts).training.kept_layers
    except NotRehearsed:
        return
    depth = int(transformers_config(plan.model).num_hidden_layers)
    yield f"recomputation: {kept} of {depth} layers are kept, the others computed again"


def _rows(plan: Plan, count: int) -> str:
    more = " or more" if count == MOST_ROWS else ""
    return f"{count} rows{more} of {plan.training.sequence_length} tokens" if count else "none"


def said_rows(plan: Plan, longest: int) -> str:
    """How long the rows are taken to be: as long as the data's ``longest``, where it is known."""
    if longest:
        return f"the rows of these data, at most {longest} tokens long"
    allowed = plan.training.sequence_length
    return f"rows of {allowed} tokens, the most that is allowed: shorter ones need less"


def _substitutions(plan: Plan) -> Iterator[str]:
    for item in plan.substitutions:
        yield str(item)


class _Heard(Silence):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def _verdict(plan: Plan, prediction: MemoryPrediction | None, room: int | None) -> Iterator[str]:
    if prediction is None:
        if plan.trains and room is not None:
            yield f"the largest micro-batch that fits into {numbers.size(room)} is not known"
        return
    needed = room_needed(plan, prediction.peak_bytes)
    where = "of GPU memory, the driver's own included" if plan.device.kind == "cuda" else "resident"
    count = plan.training.devices
    if count > 1:
        where = f"on each of {count} GPUs, the driver's own included"
        where = where if plan.device.kind == "cuda" else f"resident in {count} processes"
    yield f"needs {numbers.size(needed)} {where}; {prediction.phase} sets the peak"
    if prediction.host_bytes:
        host = numbers.size(prediction.host_bytes)
        yield f"needs {host} of page-locked host memory for layer inputs"
    if room is None:
        return
    fits = "fits" if needed <= room else "does not fit"
    rows = largest_batch(plan, room)
    most = "" if rows is None else f"; largest micro-batch that fits: {_rows(plan, rows)}"
    yield f"{fits} into {numbers.size(room)}{most}"
    if needed > room:
        from harness.forecast.table import hint

        yield hint(plan, room)


def _time(plan: Plan, runs: Path) -> Iterator[str]:
    if not plan.trains:
        return
    expected, scaled = expected_seconds(plan, runs), scaled_seconds(plan, runs)
    if expected is not None:
        yield f"time: about {expected / 60:.1f} minutes of training, judging by an earlier run"
    elif scaled is not None:
        count = "1 device" if scaled[1] == 1 else f"{scaled[1]} devices"
        yield (
            f"time: at best {scaled[0] / 60:.1f} minutes of training, judging by an earlier run on "
            f"{count}, if twice the devices are twice as fast"
        )
    else:
        yield "time: unknown, since this variant and model have not been run on this device"
    if plan.validation.every:
        yield _validations(plan, runs)


def _validations(plan: Plan, runs: Path) -> str:
    """How often training is validated, on how much, and how long that takes."""
    steps, asked = plan.budget.steps, plan.validation
    often = f"every {asked.every} steps" if steps is None else f"{asked.times(steps)} times"
    limit = plan.corpus.validation_limit
    what = "all validation conversations" if limit is None else f"at most {limit} conversations"
    seconds = validation_seconds(plan, runs)
    if seconds is None:
        cost = "for an unknown time, since no similar run exists"
    else:
        cost = f"for about {seconds / 60:.1f} minutes more, judging by an earlier run"
    early = "" if asked.patience is None else "; training may stop earlier"
    return f"validation: {often} on {what}, {cost}{early}"


def _tables(plan: Plan, prediction: MemoryPrediction) -> Iterator[RenderableType]:
    kind = "allocated" if plan.device.kind == "cuda" else "resident"
    yield _table("phase", f"peak, {kind}", prediction.by_phase)
    if "activations" in prediction.parts:
        yield _table("of the training step", "bytes", prediction.parts)


def _table(first: str, second: str, rows: dict[str, int]) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(first)
    table.add_column(second, justify="right")
    for name, size in rows.items():
        table.add_row(name.replace("_", " "), numbers.size(size))
    return table
