"""Work: the command that trains and scores."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.adapters import check_adapter
from harness.cli.app import (
    DeviceKind,
    DeviceOption,
    ReportsOption,
    SeedsOption,
    SetOption,
    SuiteOption,
    TaskOption,
    VariantOption,
    choose_device,
    complain,
    make_request,
    out,
    say,
)
from harness.cli.reports import write_suite_report
from harness.errors import HarnessError, user_mistakes
from harness.spec import registry

if TYPE_CHECKING:
    from harness.records.record import RunRecord
    from harness.records.store import RunStore
    from harness.runs.supervise import Order
    from harness.spec.plan import Plan, Substitution


class OnOom(StrEnum):
    """What to do when training runs out of memory."""

    record = "record"
    shrink = "shrink"


def run(
    variant: VariantOption,
    suite: SuiteOption = "quick",
    settings: SetOption = [],  # noqa: B006 - typer copies it
    seeds: SeedsOption = "",
    task: TaskOption = [],  # noqa: B006
    device: DeviceOption = DeviceKind.auto,
    data_folder: Annotated[
        str, typer.Option(help="Folder that mirrors hub data sets as <org>/<name>.")
    ] = "",
    reports: ReportsOption = Path("reports"),
    force: Annotated[bool, typer.Option(help="Run again although a record exists.")] = False,
    timeout_minutes: Annotated[
        float, typer.Option(min=0, help="Stop a run after this time; 0: never.")
    ] = 0,
    on_oom: Annotated[
        OnOom, typer.Option(help="Out of memory in training: record it, or halve the micro-batch.")
    ] = OnOom.record,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False,
) -> None:
    """Train and score variants, then write the comparative report."""
    from harness.records.store import RunStore
    from harness.runs.supervise import Order

    if data_folder:
        settings = [*settings, f"score.data_folder={data_folder}"]
    plans = registry.resolve(
        make_request(variant, suite, settings, seeds, task), choose_device(device)
    )
    for planned in plans:
        check_adapter(planned)
    store = RunStore(reports / "runs")
    order = Order(
        force=force,
        timeout_seconds=timeout_minutes * 60 or None,
        on_oom=on_oom.value,
        trust_remote_code=trust_remote_code,
    )
    records = _run_all(plans, store, order)
    write_suite_report(reports, plans[0].suite)
    if plans[0].suite != suite:
        say(f"again: {_report_command(plans[0].suite, reports)}")
    if len(records) < len(plans):
        raise typer.Exit(1)
    problems = [record.problem for record in records if record.problem is not None]
    if problems:
        mistakes = user_mistakes()
        raise typer.Exit(2 if all(problem.kind in mistakes for problem in problems) else 1)


def _report_command(suite: str, reports: Path) -> str:
    parts = ["python", "-m", "harness", "report", "--suite", suite]
    if reports != Path("reports"):
        parts += ["--reports", str(reports)]
    return shlex.join(parts)


def _run_all(plans: list[Plan], store: RunStore, order: Order) -> list[RunRecord]:
    """The records of all plans that could be run; one that could not is told and passed over."""
    records, errors = [], []
    for planned in plans:
        try:
            records.append(_run_one(planned, store, order))
        except HarnessError as error:
            if len(plans) == 1:
                raise
            errors.append(error)
            complain(f"{planned.variant} on {planned.suite}, seed {planned.seed}: {error}")
    if not records:
        raise typer.Exit(errors[0].exit_code)
    return records


def _print_substitutions(title: str, items: Iterable[Substitution]) -> None:
    for item in items:
        say(
            f"{title}: {item.key} = {item.used} instead of {item.asked} ({item.reason})",
            style="yellow",
        )


def _run_one(planned: Plan, store: RunStore, order: Order) -> RunRecord:
    from harness.cli.display import Display
    from harness.runs.supervise import supervise

    title = f"{planned.variant} on {planned.suite}, seed {planned.seed}"
    _print_substitutions(title, planned.substitutions)
    with Display(out, title) as display:
        record = supervise(planned, store, display, order)
    more = [item for item in record.plan.substitutions if item not in planned.substitutions]
    _print_substitutions(title, more)
    if record.problem is not None:
        problem, folder = record.problem, store.folder(record.plan)
        where = f" in phase {problem.phase}" if problem.phase else ""
        step = f", step {problem.step}" if problem.step else ""
        log = folder.attempt.log if folder.attempt.log.is_file() else folder.log
        complain(f"{title}: {record.status}{where}{step}: {problem.message}\n  log: {log}")
    return record
