"""Look: the commands that show what there is and what a run would do; none of them trains."""

from __future__ import annotations

from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

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
    make_request,
    out,
)
from harness.errors import UserError
from harness.spec import registry

if TYPE_CHECKING:
    from harness.records.store import BrokenRun, RunLine


class Kind(StrEnum):
    """What can be listed."""

    variants = "variants"
    suites = "suites"
    models = "models"
    runs = "runs"


def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")] = Kind.variants,
    reports: ReportsOption = Path("reports"),
) -> None:
    """List variants, suites, models or runs."""
    if kind is Kind.runs:
        _list_runs(reports)
        return
    table = Table("name", "description", title=str(kind), title_justify="left")
    for name, description in registry.descriptions(kind.value):
        table.add_row(name, description)
    out.print(table)


def _list_runs(reports: Path) -> None:
    from harness.records.store import RunLine, RunStore
    from harness.runs.supervise import settle

    table = Table("suite", "variant", "seed", "status", "minutes", "started", title_justify="left")
    store = RunStore(reports / "runs")
    settle(store)
    for readable, runs in groupby(store.lines(), lambda run: isinstance(run, RunLine)):
        rows = [_run_cells(run) for run in runs]
        if readable:
            # Drawing a row costs rich as much as drawing a dozen lines in one row's cells.
            rows = [["\n".join(column) for column in zip(*rows, strict=True)]]
        for row in rows:
            table.add_row(*(Text(cell, overflow="ellipsis", no_wrap=readable) for cell in row))
    out.print(table)


def _run_cells(run: RunLine | BrokenRun) -> list[str]:
    from harness.records.store import BrokenRun

    if isinstance(run, BrokenRun):
        return [str(run.folder.path), "", "", "unreadable", "", run.error.what]
    name, minutes = run.plan, f"{run.seconds / 60:.1f}"
    return [name.suite, name.variant, str(name.seed), run.status, minutes, run.started_at]


def show(
    name: Annotated[str, typer.Argument(help="A variant, suite or model.")],
    suite: SuiteOption = "quick",
) -> None:
    """Show a variant (resolved under a suite), a suite or a model, every value spelled out."""
    out.print_json(registry.show(name, suite))


def plan(
    variant: VariantOption,
    suite: SuiteOption = "quick",
    settings: SetOption = [],  # noqa: B006 - typer copies it
    seeds: SeedsOption = "",
    task: TaskOption = [],  # noqa: B006
    device: DeviceOption = DeviceKind.auto,
    gpu: Annotated[str, typer.Option(help="Plan for this GPU: rtx4090, t4, h100, …")] = "",
    memory: Annotated[str, typer.Option(help="Memory to fit into: 24GiB.")] = "",
    reports: ReportsOption = Path("reports"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan itself.")] = False,
) -> None:
    """Say what a run would do and cost, before anything is downloaded."""
    from harness.forecast.show import plan_report

    request = make_request(variant, suite, settings, seeds, task)
    plans = registry.resolve(request, choose_device(device, gpu))
    for planned in plans:
        check_adapter(planned)
        if not as_json:
            out.print(plan_report(planned, memory, reports / "runs"))
    if as_json:
        texts = [planned.model_dump_json() for planned in plans]
        out.print_json(texts[0] if len(texts) == 1 else f"[{','.join(texts)}]")
    elif not plans[0].corpus.source.startswith("hub:"):
        from harness.corpus.corpus import build_corpus
        from harness.corpus.view import funnel_table

        out.print(funnel_table(build_corpus(plans[0].corpus).result))


def doctor() -> None:
    """Say what this machine can do, what is missing, and how to get it."""
    from harness.doctor import examine

    table = Table("check", "found", "advice", title_justify="left")
    for check in examine():
        mark = {True: "[green]ok[/]", False: "[red]missing[/]", None: "[yellow]note[/]"}[check.ok]
        table.add_row(f"{mark} {check.name}", check.found, check.advice)
    out.print(table)


def corpus(
    suite: SuiteOption = "quick",
    settings: SetOption = [],  # noqa: B006 - typer copies it
    samples: Annotated[int, typer.Option(help="How many conversations to show.")] = 3,
) -> None:
    """Show what a suite's corpus holds and, token by token, what a model would learn from it."""
    from harness.cli.display import Notes
    from harness.corpus.render import Renderer
    from harness.corpus.view import corpus_report
    from harness.weights.fetch import fetch_tokenizer, quiet_libraries
    from harness.weights.load import load_tokenizer

    changes, overrides = registry.parse_settings(settings)
    unused = sorted(set(changes) - {"training"})
    if unused:
        raise UserError(f"--set {unused[0]}.… changes nothing about a corpus")
    chosen = registry.load_suite(suite, registry.merge(overrides, changes))
    with Notes(out) as notes:
        model = registry.load_model(chosen.model)
        quiet_libraries()
        tokenizer = load_tokenizer(fetch_tokenizer(model, notes))
        renderer = Renderer(tokenizer, model.chat_template, chosen.corpus.chat_date)
        found = corpus_report(chosen, samples, renderer, notes)
    out.print(found)
