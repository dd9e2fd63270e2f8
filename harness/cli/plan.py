"""Plan: the command that says what a run would do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.app import out, say
from harness.cli.checks.plans import check_plans
from harness.cli.devices import DevicesOption, GpusOption, check_devices, with_devices
from harness.cli.naming import NameOption, named, said_changes, said_seeds
from harness.cli.options import (
    DeviceKind,
    DeviceOption,
    ReportsOption,
    SeedsOption,
    SetOption,
    SuiteOption,
    TaskOption,
    VariantOption,
    make_request,
)
from harness.cli.sources import DataOption, IncludePathOption, ModelOption, with_sources

if TYPE_CHECKING:
    from harness.spec.device import Device
    from harness.spec.plan import Plan


def plan(
    variant: VariantOption,
    suite: SuiteOption = "quick",
    settings: SetOption = [],  # noqa: B006 - typer copies it
    seeds: SeedsOption = "",
    task: TaskOption = [],  # noqa: B006
    name: NameOption = "",
    model: ModelOption = "",
    data: DataOption = "",
    include_path: IncludePathOption = "",
    device: DeviceOption = DeviceKind.auto,
    devices: DevicesOption = 0,
    gpus: GpusOption = "",
    gpu: Annotated[str, typer.Option(help="Plan for this GPU: rtx4090, t4, h100, …")] = "",
    memory: Annotated[str, typer.Option(help="Memory that the run must fit into: 24GiB.")] = "",
    reports: ReportsOption = Path("reports"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole plan as JSON.")] = False,
) -> None:
    """Show what a run would do and cost, before anything is downloaded."""
    from harness.records.store import RunStore
    from harness.train.path import resolve

    settings = with_sources(settings, model, data, include_path)
    settings = with_devices(settings, devices, gpus)
    asked = make_request(variant, suite, settings, seeds, task, name)
    request = named(asked, RunStore(reports / "runs"))
    plans = resolve(request, _choose_device(device, gpu))
    if not gpu:
        check_devices(plans)
    check_plans(plans)
    if as_json:
        _print_json(plans)
        return
    if changes := said_changes(plans[0]):
        out.print(changes, markup=False, highlight=False)
    for line in said_seeds(plans, seeds):
        say(line)
    _print_forecasts(plans, memory, reports)
    _print_funnel(plans[0])


def _choose_device(kind: DeviceKind, gpu: str) -> Device:
    """The device to plan for: a named GPU, or one of this machine."""
    if gpu:
        from harness.spec.gpus import planned_gpu

        return planned_gpu(gpu)
    from harness.spec.device import detect_device

    return detect_device(kind.value)


def _print_json(plans: list[Plan]) -> None:
    texts = [planned.model_dump_json() for planned in plans]
    out.print_json(texts[0] if len(texts) == 1 else f"[{','.join(texts)}]")


def _print_forecasts(plans: list[Plan], memory: str, reports: Path) -> None:
    """Each variant once, since seeds cost the same: one in full, several side by side."""
    from harness.forecast.rows import largest_of_each
    from harness.forecast.wording import plan_report

    first: dict[str, Plan] = {}
    for planned in plans:
        first.setdefault(planned.variant, planned)
    once = list(first.values())
    rows, runs = largest_of_each(once), reports / "runs"
    if len(once) > 1:
        from harness.forecast.table import forecast, forecast_table

        found = [forecast(one, memory, runs, row) for one, row in zip(once, rows, strict=True)]
        out.print(forecast_table(found))
        return
    out.print(plan_report(once[0], memory, runs, rows[0]))
    if once[0].training.devices > 1:
        from harness.forecast.dividing import dividing_report

        out.print(dividing_report(once[0], _room(once[0], memory)))


def _room(planned: Plan, memory: str) -> int | None:
    from harness.spec.gpus import parse_memory

    return parse_memory(memory) if memory else planned.device.memory_bytes


def _print_funnel(planned: Plan) -> None:
    """What the corpus steps leave; a corpus on the hub is not there yet."""
    if planned.corpus.source.startswith("hub:"):
        return
    from harness.corpus.corpus import build_corpus
    from harness.corpus.view import funnel_table

    out.print(funnel_table(build_corpus(planned.corpus).result))
