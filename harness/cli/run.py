"""Run: the command that trains and scores."""

from __future__ import annotations

import shlex
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.app import complain, out, say
from harness.cli.checks.data import check_run
from harness.cli.checks.plans import check_plans
from harness.cli.devices import DevicesOption, GpusOption, check_devices, with_devices
from harness.cli.naming import NameOption, named, said_changes, said_paths, said_seeds
from harness.cli.options import (
    DeviceKind,
    DeviceOption,
    ReportsOption,
    SeedsOption,
    SetOption,
    SuiteOption,
    TaskOption,
    TrustOption,
    VariantOption,
    make_request,
)
from harness.cli.placing import (
    AddressOption,
    ExecutorOption,
    JobsOption,
    PartitionOption,
    Placing,
    TogetherOption,
    said_alone,
    warn_of_load,
)
from harness.cli.report import write_suite_report
from harness.cli.sources import DataOption, IncludePathOption, ModelOption, with_sources
from harness.cli.tracking import TrackOption, keep_report
from harness.errors import user_mistakes

if TYPE_CHECKING:
    from harness.records.record import RunRecord
    from harness.records.store import RunStore
    from harness.runs.executor import Executor
    from harness.runs.listener import RunResult
    from harness.runs.options import RunOptions
    from harness.spec.plan import Plan
    from harness.trackers.tracker import Tracker


class OnOom(StrEnum):
    """What to do when training runs out of memory."""

    record = "record"
    shrink = "shrink"


def run(
    context: typer.Context,
    variant: VariantOption,
    suite: SuiteOption = "quick",
    settings: SetOption = [],  # noqa: B006 - typer copies it
    seeds: SeedsOption = "",
    task: TaskOption = [],  # noqa: B006
    model: ModelOption = "",
    data: DataOption = "",
    include_path: IncludePathOption = "",
    name: NameOption = "",
    device: DeviceOption = DeviceKind.auto,
    devices: DevicesOption = 0,
    gpus: GpusOption = "",
    jobs: JobsOption = 0,
    together: TogetherOption = 1,
    executor: ExecutorOption = "local",
    address: AddressOption = "",
    partition: PartitionOption = "",
    data_folder: Annotated[
        str, typer.Option(help="Folder with copies of hub data sets, as <org>/<name>.")
    ] = "",
    reports: ReportsOption = Path("reports"),
    force: Annotated[bool, typer.Option(help="Run again even if there is a finished run.")] = False,
    timeout_minutes: Annotated[
        float, typer.Option(min=0, help="Stop a run after this time; 0: no limit.")
    ] = 0,
    on_oom: Annotated[
        OnOom,
        typer.Option(
            help="When training runs out of memory: record it, or retry with half the micro-batch."
        ),
    ] = OnOom.record,
    track: TrackOption = [],  # noqa: B006
    trust_remote_code: TrustOption = False,
) -> None:
    """Train and score variants, then write the comparative report."""
    from harness.runs.early_start import early_start

    if executor == "local" and devices <= 1:
        context.call_on_close(early_start().close)
        early_start().begin()
    from harness.records.store import RunStore
    from harness.runs.options import RunOptions
    from harness.trackers.choose import make_trackers
    from harness.train.path import resolve

    store = RunStore(reports / "runs")
    options = RunOptions(
        force=force,
        timeout_seconds=timeout_minutes * 60 or None,
        on_oom=on_oom.value,
        trust_remote_code=trust_remote_code,
    )
    spread = gpus if jobs else ""  # without --jobs, a run is divided over them
    runner = Placing(executor, jobs, spread, address, partition).make(store, options)
    if data_folder:
        settings = [*settings, f"score.data_folder={data_folder}"]
    settings = with_sources(settings, model, data, include_path)
    settings = with_devices(settings, devices, "" if spread else gpus)
    request = named(make_request(variant, suite, settings, seeds, task, name), store)
    plans = resolve(request, runner.device(device.value))
    check_devices(plans)
    check_plans(plans)
    missing = to_be_run(plans, store, options)
    check_run(missing, reports)
    trackers = make_trackers(track, reports)
    if changes := said_changes(plans[0]):
        say(changes)
    for line in said_seeds(plans, seeds):
        say(line)
    if paths := said_paths(plans):
        say(paths)
    _make_ready(missing, executor)
    if alone := said_alone(missing, together):
        say(alone)
    records = _records(_carry_out(plans, runner, store, trackers, together))
    called = plans[0].suite
    if any(store.folder(record.plan).record.is_file() for record in records):
        page = write_suite_report(reports, called)
        keep_report(trackers, called, page)
        if called != suite:
            say(f"To rebuild this report: {_report_command(called, reports)}")
    else:  # where the disk is full there is nothing to report on
        complain(f"no report: no record of this run could be written below {reports}")
    code = _exit_code(plans, records)
    if code:
        raise typer.Exit(code)


def _make_ready(missing: list[Plan], executor: str) -> None:
    """End the process that waits if no run will use it; say so if the machine is busy."""
    from harness.runs.early_start import early_start

    if all(plan.training.devices > 1 for plan in missing):  # torchrun starts those
        early_start().close()
    if missing and executor == "local":
        warn_of_load()


def to_be_run(plans: list[Plan], store: RunStore, options: RunOptions) -> list[Plan]:
    """Those of ``plans`` that no record makes unnecessary: what did not end well is run again."""
    from harness.runs.supervise import makes_running_unnecessary

    known = [store.find(plan) for plan in plans]
    return [
        plan
        for plan, record in zip(plans, known, strict=True)
        if record is None or not makes_running_unnecessary(record, options)
    ]


def _carry_out(
    plans: list[Plan],
    executor: Executor,
    store: RunStore,
    trackers: list[Tracker],
    together: int,
) -> list[RunResult]:
    from harness.cli.board import Board
    from harness.cli.display import Display
    from harness.cli.notices import Notices
    from harness.runs.batch import run_batch
    from harness.runs.warm_start import warm_start

    view = Board(out) if len(plans) > 1 else Display(out)
    with closing(warm_start()):
        return list(run_batch(plans, executor, [view, Notices(store), *trackers], together))


def _records(results: list[RunResult]) -> list[RunRecord]:
    """The records of all plans that could be run; if none could, that is the command's error."""
    records = [result.record for result in results if result.record is not None]
    errors = [result.error for result in results if result.error is not None]
    if errors and len(results) == 1:
        raise errors[0]
    if errors and not records:
        raise typer.Exit(errors[0].exit_code)
    return records


def _exit_code(plans: list[Plan], records: list[RunRecord]) -> int:
    """2 if all that went wrong are the user's mistakes, 1 if anything else did."""
    if len(records) < len(plans):
        return 1
    problems = [record.problem for record in records if record.problem is not None]
    mistakes = user_mistakes()
    if all(problem.kind in mistakes for problem in problems):
        return 2 if problems else 0
    return 1


def _report_command(suite: str, reports: Path) -> str:
    parts = ["python", "-m", "harness", "report", "--suite", suite]
    if reports != Path("reports"):
        parts += ["--reports", str(reports)]
    return shlex.join(parts)
