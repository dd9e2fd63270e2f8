"""Dividing: what each way of sharing a plan among devices needs, and which is the fastest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.forecast.memory import largest_batch, predict, room_needed
from harness.forecast.weights import standing_bytes
from harness.records.record import MemoryPrediction
from harness.spec.parallel import parallel_refusal
from harness.spec.plan import Plan
from harness.train.path import choose_path
from harness.weights.shape import count_plan

if TYPE_CHECKING:
    from rich.console import RenderableType

GIB = 1 << 30
UNKNOWN = "–"
WORDS = {"none": "one device", "data": "data", "sharded": "sharded"}
# Whole layers are gathered for the forward pass and again for the backward; of trained ones the
# gradients are added up too.
GATHERS, SUMS = 2, 1


@dataclass(frozen=True)
class Way:
    """One way: its plan, or why there is none; bytes are those of each device.

    ``exchanged`` is what a device receives from the others in an optimizer step.
    """

    parallel: str
    plan: Plan | None = None
    refused: str = ""
    prediction: MemoryPrediction | None = None
    needed: int | None = None
    rows: int | None = None
    exchanged: int = 0

    def fits(self, room: int | None) -> bool | None:
        """Whether it fits into ``room`` bytes a device; None: not known."""
        if self.plan is None:
            return False
        return None if room is None or self.needed is None else self.needed <= room


def ways(plan: Plan, room: int | None) -> list[Way]:
    """One device, data and sharded over the devices of ``plan``, each with what it needs."""
    return [_way(plan, parallel, room) for parallel in WORDS]


def _way(plan: Plan, parallel: str, room: int | None) -> Way:
    devices = 1 if parallel == "none" else plan.training.devices
    changed = {"devices": devices, "parallel": parallel}
    if parallel != "sharded" and plan.request is not None and plan.sharded:
        changed |= {"speed": _asked_speed(plan)}
    training = plan.training.model_copy(update=changed)
    divided = plan.model_copy(update={"training": training})
    refused = parallel_refusal(divided, divided.score.forms)
    if refused is not None:
        return Way(parallel, refused=refused)
    try:
        divided = choose_path(divided)
        prediction = predict(divided)
    except HarnessError as error:
        return Way(parallel, refused=error.what)
    needed = None if prediction is None else room_needed(divided, prediction.peak_bytes)
    rows = None if room is None or needed is None else largest_batch(divided, room)
    return Way(parallel, divided, "", prediction, needed, rows, exchanged(divided))


def _asked_speed(plan: Plan) -> str:
    """The path that was asked for before sharding ruled it out."""
    asked = [item.asked for item in plan.substitutions if item.key == "training.speed"]
    return str(asked[0]) if asked else plan.training.speed


def exchanged(plan: Plan) -> int:
    """Bytes that a device gets from the others in one optimizer step.

    A ring's sum of gradients passes them twice, less one share; a gathered layer's other shares
    are received once for each forward and backward pass of a micro-batch, and the sums of a trained
    layer's gradients once.
    """
    count = plan.training.devices
    if count == 1 or not plan.trains:
        return 0
    standing = standing_bytes(plan, count_plan(plan))
    gradients = standing.gradients
    if plan.spreads_training:  # stored as weights are
        gradients -= -(-standing.spread // count)
    received = 2 * gradients * (count - 1) // count
    if plan.sharded:
        passes = plan.device_rows // plan.training.micro_batch_size
        times = GATHERS + (SUMS if plan.spreads_training else 0)
        received += times * passes * standing.spread * (count - 1) // count
    return received


def fastest(found: Sequence[Way], room: int | None) -> str:
    """Which of the ways that fit is the fastest, and why, in a sentence."""
    fitting = {way.parallel: way for way in found if way.fits(room)}
    unknown = [way for way in found if way.fits(room) is None and way.plan is not None]
    if "data" in fitting:
        size = _gib(fitting["data"].exchanged)
        return (
            "fastest: data. Every device has the whole model, and only gradients are exchanged, "
            f"{size} a device and step"
        )
    if "sharded" in fitting:
        size = _gib(fitting["sharded"].exchanged)
        return (
            "fastest: sharded. The whole model does not fit one device; layers are gathered for "
            f"every pass, {size} a device and step"
        )
    if unknown:
        return "fastest: data, if it fits, which is not known; it exchanges gradients alone"
    return "none of them fits"


def dividing_report(plan: Plan, room: int | None) -> RenderableType:
    """A row for each way of dividing ``plan`` over its devices, and the fastest."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    found = ways(plan, room)
    table = Table(
        title=Text(f"ways to use {plan.training.devices} devices, GiB on each"),
        title_justify="left",
        padding=(0, 1),
        box=None,
    )
    table.add_column("way")
    for title in ("weights", "gathered", "step", "needs", "host", "exchanged"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("fits")
    table.add_column("micro-batch", justify="right")
    for way in found:
        table.add_row(*(Text(cell) for cell in _cells(way, room)))
    lines = [*_refusals(found), fastest(found, room)]
    return Group(table, *(Text(line) for line in lines))


def _refusals(found: Sequence[Way]) -> Iterator[str]:
    yield from (way.refused for way in found if way.refused)


def _cells(way: Way, room: int | None) -> list[str]:
    if way.plan is None:
        return [WORDS[way.parallel], *[UNKNOWN] * 6, "refused", UNKNOWN]
    parts = {} if way.prediction is None else dict(way.prediction.parts)
    weights, gathered = parts.pop("weights", None), parts.pop("gathered_layers", 0)
    host = None if way.prediction is None else way.prediction.host_bytes
    return [
        WORDS[way.parallel],
        _number(weights),
        _number(gathered or None),
        _number(sum(parts.values()) if parts else None),
        _number(way.needed),
        _number(host),
        _number(way.exchanged or None),
        {True: "yes", False: "no", None: UNKNOWN}[way.fits(room)],
        UNKNOWN if way.rows is None else str(way.rows or "none"),
    ]


def _number(size: int | None) -> str:
    return UNKNOWN if size is None else f"{size / GIB:.2f}"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB // 100 else f"{size / (1 << 20):.1f} MiB"
