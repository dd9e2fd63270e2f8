"""Command line: parse arguments, call one function, print. The only place that prints or exits."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from harness import __version__, registry
from harness.errors import HarnessError, UserError, user_mistakes

if TYPE_CHECKING:
    from harness.device import Device
    from harness.plan import Plan, Substitution
    from harness.record import RunRecord
    from harness.store import RunStore
    from harness.supervise import Order

app = typer.Typer(
    name="harness",
    help="Which fine-tuning variant should I use, what does it cost, and can I trust the answer?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
INTERRUPTED = 130
out = Console()
err = Console(stderr=True)


class DeviceKind(StrEnum):
    """Where to run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class OnOom(StrEnum):
    """What to do when training runs out of memory."""

    record = "record"
    shrink = "shrink"


VariantOption = Annotated[
    list[str], typer.Option("--variant", "-v", help="A registered variant or a TOML file.")
]
SuiteOption = Annotated[str, typer.Option("--suite", "-s", help="A built-in suite or a TOML file.")]
SetOption = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting: adapter.r=32."),
]
TaskOption = Annotated[
    list[str], typer.Option("--task", help="An lm-eval task or group to score in addition.")
]
ReportsOption = Annotated[Path, typer.Option("--reports", help="Folder that holds runs/.")]
SeedsOption = Annotated[
    str, typer.Option("--seeds", help="0, 0,1,2 or 0..4; default: the suite's.")
]
DeviceOption = Annotated[DeviceKind, typer.Option("--device", help="Where to run.")]


def main() -> int:
    """Run the command line and return the exit code."""
    try:
        app()
    except HarnessError as error:
        err.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return error.exit_code
    except SystemExit as done:
        if done.code == INTERRUPTED:  # typer turns Ctrl-C into this code and says nothing
            err.print("interrupted", style="yellow")
        return done.code if isinstance(done.code, int) else 1
    return 0


def _print_version(asked: bool) -> None:  # noqa: FBT001 - called by typer
    if asked:
        out.print(f"finetune-harness {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print it.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Options before any command."""


class Kind(StrEnum):
    """What can be listed."""

    variants = "variants"
    suites = "suites"
    models = "models"
    runs = "runs"


@app.command("list")
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
    from harness.store import RunStore, StoredRun

    table = Table("suite", "variant", "seed", "status", "minutes", "started", title_justify="left")
    for run in RunStore(reports / "runs").scan():
        if isinstance(run, StoredRun):
            plan, record = run.record.plan, run.record
            minutes = f"{record.seconds / 60:.1f}"
            table.add_row(
                plan.suite, plan.variant, str(plan.seed), record.status, minutes, record.started_at
            )
        else:
            table.add_row(str(run.folder.path), "", "", "unreadable", "", run.error.what)
    out.print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A variant, suite or model.")],
    suite: SuiteOption = "quick",
) -> None:
    """Show a variant (resolved under a suite), a suite or a model, every value spelled out."""
    out.print_json(registry.show(name, suite))


@app.command()
def plan(
    variant: VariantOption,
    suite: SuiteOption = "quick",
    settings: SetOption = [],  # noqa: B006 - typer copies it
    seeds: SeedsOption = "",
    task: TaskOption = [],  # noqa: B006
    device: DeviceOption = DeviceKind.auto,
    gpu: Annotated[str, typer.Option(help="Plan for this GPU: rtx4090, t4, h100, …")] = "",
    memory: Annotated[str, typer.Option(help="Memory to fit into: 24GiB.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan itself.")] = False,
) -> None:
    """Say what a run would do and cost, before anything is downloaded."""
    from harness.measure.show import plan_report

    request = _request(variant, suite, settings, seeds, task)
    for planned in registry.resolve(request, _device(device, gpu)):
        _check_adapter(planned)
        if as_json:
            out.print_json(planned.model_dump_json())
        else:
            out.print(plan_report(planned, memory))


def _device(kind: DeviceKind, gpu: str = "") -> Device:
    if gpu:
        from harness.measure.gpus import planned_gpu

        return planned_gpu(gpu)
    from harness.device import detect_device

    return detect_device(kind.value)


def _request(  # the options that say what to run
    variants: list[str], suite: str, settings: list[str], seeds: str, tasks: list[str]
) -> registry.Request:
    return registry.Request(
        tuple(variants), suite, tuple(settings), tuple(tasks), registry.parse_seeds(seeds)
    )


@app.command()
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
    timeout_minutes: Annotated[float, typer.Option(help="Stop a run after this time.")] = 0,
    on_oom: Annotated[
        OnOom, typer.Option(help="Out of memory in training: record it, or halve the micro-batch.")
    ] = OnOom.record,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False,
) -> None:
    """Train and score variants, then write the comparative report."""
    from harness.store import RunStore
    from harness.supervise import Order

    if data_folder:
        settings = [*settings, f"score.data_folder={data_folder}"]
    plans = registry.resolve(_request(variant, suite, settings, seeds, task), _device(device))
    for planned in plans:
        _check_adapter(planned)
    store = RunStore(reports / "runs")
    order = Order(
        force=force,
        timeout_seconds=timeout_minutes * 60 or None,
        on_oom=on_oom.value,
        trust_remote_code=trust_remote_code,
    )
    records = _run_all(plans, store, order)
    _report(reports, plans[0].suite)
    if len(records) < len(plans):
        raise typer.Exit(1)
    problems = [record.problem for record in records if record.problem is not None]
    if problems:
        mistakes = user_mistakes()
        raise typer.Exit(2 if all(problem.kind in mistakes for problem in problems) else 1)


def _check_adapter(planned: Plan) -> None:
    """Refuse an adapter that PEFT would; LoRA's defaults with other numbers need no look."""
    adapter = planned.adapter
    if adapter is None:
        return
    usual = {"type": "LORA", **registry.LORA_DEFAULTS}
    given = {"type": adapter.type, **adapter.fields}
    changed = {name for name, value in given.items() if value != usual.get(name)}
    if all(type(given[name]) is int and type(usual.get(name)) is int for name in changed):
        return
    from harness.model.adapter import adapter_config

    adapter_config(adapter)


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
            _complain(f"{planned.variant} on {planned.suite}, seed {planned.seed}: {error}")
    if not records:
        raise typer.Exit(errors[0].exit_code)
    return records


def _complain(text: str) -> None:
    err.print(text, style="red", markup=False, highlight=False, soft_wrap=True)


def _print_substitutions(title: str, items: Iterable[Substitution]) -> None:
    for item in items:
        out.print(
            f"{title}: {item.key} = {item.used} instead of {item.asked} ({item.reason})",
            style="yellow",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _run_one(planned: Plan, store: RunStore, order: Order) -> RunRecord:
    from harness.display import Display
    from harness.supervise import supervise

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
        _complain(f"{title}: {record.status}{where}{step}: {problem.message}\n  log: {log}")
    return record


@app.command()
def report(
    suite: SuiteOption = "quick",
    reports: ReportsOption = Path("reports"),
) -> None:
    """Write the report of a suite's runs: markdown, HTML and figures."""
    _report(reports, suite)


def _report(reports: Path, suite: str) -> None:
    from harness.report.build import ReportRequest, build_report
    from harness.report.console import ranking_table
    from harness.report.write import write_report
    from harness.store import BrokenRun, RunStore, StoredRun
    from harness.supervise import settle

    store = RunStore(reports / "runs")
    settle(store, suite)
    found = list(store.scan(suite))
    runs = [item for item in found if isinstance(item, StoredRun)]
    broken = [item for item in found if isinstance(item, BrokenRun)]
    if not runs:
        raise UserError(
            f"no runs of suite {suite}",
            where=reports / "runs",
            hint=f"python -m harness run --suite {suite} --variant qlora_nf4",
        )
    built = build_report(runs, broken, ReportRequest(suite=suite))
    path = write_report(built, reports / suite)
    out.print(ranking_table(built))
    out.print(f"report: {path}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def doctor() -> None:
    """Say what this machine can do, what is missing, and how to get it."""
    from harness.doctor import examine

    table = Table("check", "found", "advice", title_justify="left")
    for check in examine():
        mark = {True: "[green]ok[/]", False: "[red]missing[/]", None: "[yellow]note[/]"}[check.ok]
        table.add_row(f"{mark} {check.name}", check.found, check.advice)
    out.print(table)


@app.command()
def corpus(
    suite: SuiteOption = "quick",
    settings: SetOption = [],  # noqa: B006 - typer copies it
    samples: Annotated[int, typer.Option(help="How many conversations to show.")] = 3,
) -> None:
    """Show what a suite's corpus holds and, token by token, what a model would learn from it."""
    from harness.corpus.render import Renderer
    from harness.corpus.show import corpus_report
    from harness.display import Notes
    from harness.model.fetch import fetch_tokenizer, quiet_libraries
    from harness.model.load import load_tokenizer

    _, overrides = registry.parse_settings(settings)
    chosen = registry.load_suite(suite, overrides)
    with Notes(out) as notes:
        model = registry.load_model(chosen.model)
        quiet_libraries()
        renderer = Renderer(load_tokenizer(fetch_tokenizer(model, notes)), model.chat_template)
        found = corpus_report(chosen, samples, renderer, notes)
    out.print(found)
