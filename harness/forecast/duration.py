"""Duration: how long training will take, by the throughput of a stored run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import median

from harness.records.record import RunRecord
from harness.records.store import RunStore, StoredRun
from harness.spec.plan import Plan


def expected_seconds(plan: Plan, runs: Path) -> float | None:
    """Seconds of training, by the latest finished run of the same kind below ``runs``, or None.

    The same kind: variant, model, device, their number and speed path. The tokens of a step are
    those of that run, scaled by the rows of a step.
    """
    found = [
        item.record
        for item in RunStore(runs).scan()
        if isinstance(item, StoredRun) and _same_kind(plan, item.record)
    ]
    return _seconds(plan, found)


def whole_run_seconds(runs: Path) -> Callable[[Plan], float | None]:
    """Tells how long a whole run of a plan will take, by the finished runs below ``runs``.

    The median over those of the same variant, model, device, corpus, budget and scores, trained
    or not; None where there is none. The runs are read once, when the first plan is asked for.
    """

    @cache
    def known() -> dict[str, list[float]]:
        seconds: dict[str, list[float]] = {}
        for item in RunStore(runs).scan():
            if isinstance(item, StoredRun) and item.record.status == "ok":
                seconds.setdefault(_whole_kind(item.record.plan), []).append(item.record.seconds)
        return seconds

    def tell(plan: Plan) -> float | None:
        found = known().get(_whole_kind(plan))
        return median(found) if found else None

    return tell


def _whole_kind(plan: Plan) -> str:
    """Equal for plans whose runs take about as long."""
    parts = (plan.budget, plan.score, plan.validation)
    names = (plan.variant, plan.model.name, plan.device.name, str(plan.training.devices))
    texts = (*names, plan.training.speed, str(plan.corpus_sha256))
    return "\n".join((*texts, *(part.model_dump_json() for part in parts)))


def scaled_seconds(plan: Plan, runs: Path) -> tuple[float, int] | None:
    """Seconds by the latest run of the same kind on another number of devices, and that number.

    As if twice the devices were twice as fast, which is the best that can be had.
    """
    found = [
        item.record
        for item in RunStore(runs).scan()
        if isinstance(item, StoredRun) and _same_kind(_on_as_many(plan, item.record), item.record)
    ]
    seconds = _seconds(plan, found)
    if seconds is None:
        return None
    devices = max(found, key=lambda record: record.started_at).plan.training.devices
    return seconds * devices / plan.training.devices, devices


def _on_as_many(plan: Plan, record: RunRecord) -> Plan:
    """``plan`` on as many devices as a run had, under that run's name where that is all it says."""
    training = plan.training.model_copy(update={"devices": record.plan.training.devices})
    alike = _without_devices(plan.variant) == _without_devices(record.plan.variant)
    name = record.plan.variant if alike else plan.variant
    return plan.model_copy(update={"training": training, "variant": name})


def _without_devices(variant: str) -> str:
    """A variant's name without what ``--devices`` has added to it."""
    parts = variant.split("+")
    return "+".join(part for part in parts if not part.startswith("training.devices="))


def _seconds(plan: Plan, found: Sequence[RunRecord]) -> float | None:
    if not found:
        return None
    latest = max(found, key=lambda record: record.started_at)
    rate = latest.training.throughput.median if latest.training is not None else None
    return _tokens(plan, latest) / rate if rate else None


def validation_seconds(plan: Plan, runs: Path) -> float | None:
    """Seconds of all validations of ``plan``, by the latest finished run of the same kind.

    The same kind: also the same corpus and the same windows. None where there is none, or the
    number of steps is not known beforehand.
    """
    found = [
        item.record
        for item in RunStore(runs).scan()
        if isinstance(item, StoredRun)
        and _same_kind(plan, item.record)
        and item.record.training is not None
        and item.record.training.validation is not None
        and _validated_alike(plan, item.record.plan)
    ]
    if not found or plan.budget.steps is None:
        return None
    latest = max(found, key=lambda record: record.started_at)
    assert latest.training is not None  # noqa: S101 - asked before
    assert latest.training.validation is not None  # noqa: S101
    points = latest.training.validation.points
    each = sum(point.seconds for point in points) / len(points)
    return each * plan.validation.times(plan.budget.steps)


def _validated_alike(plan: Plan, other: Plan) -> bool:
    settings = ("window", "stride", "held_out_tokens", "engine", "batch_tokens")
    mine, theirs = plan.score, other.score
    return (plan.corpus, plan.corpus_sha256) == (other.corpus, other.corpus_sha256) and all(
        getattr(mine, name) == getattr(theirs, name) for name in settings
    )


def _same_kind(plan: Plan, record: RunRecord) -> bool:
    training = record.training
    return (
        training is not None
        and training.steps > 0
        and training.throughput.median is not None
        and record.plan.variant == plan.variant
        and record.plan.model.name == plan.model.name
        and record.plan.device.name == plan.device.name
        and record.plan.training.devices == plan.training.devices
        and training.trainer == plan.training.speed
    )


def _tokens(plan: Plan, record: RunRecord) -> float:
    """Non-padding tokens that ``plan`` will train on."""
    if plan.budget.tokens is not None:
        return plan.budget.tokens
    training = record.training
    assert training is not None  # noqa: S101 - asked before
    row = training.tokens.non_padding / training.steps / record.plan.budget.batch_size
    return (plan.budget.steps or 0) * plan.budget.batch_size * row
