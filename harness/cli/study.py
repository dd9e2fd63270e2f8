"""Study: the command that answers a question: tunes, repeats until decided, reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from harness.cli.app import out, say
from harness.cli.options import DeviceKind, DeviceOption, ReportsOption, SetOption
from harness.cli.preflight import preflight
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.records.store import RunStore
    from harness.runs.executor import Executor
    from harness.runs.listener import Listener
    from harness.studies.agenda import Agenda
    from harness.studies.drive import Shard
    from harness.studies.open import OpenStudy


def study(
    name: Annotated[str, typer.Argument(help="A built-in study or a TOML file.")],
    settings: SetOption = [],  # noqa: B006 - typer copies it
    suite: Annotated[
        str, typer.Option("--suite", "-s", help="Suite to use instead of the study's own.")
    ] = "",
    plan: Annotated[
        bool, typer.Option("--plan", help="Show what would run, without running anything.")
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Show how far the study has come.")
    ] = False,
    shard: Annotated[
        str, typer.Option(help="Run one part of the study: 3/8 is the third of eight parts.")
    ] = "",
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time on this machine.")] = 1,
    executor: Annotated[str, typer.Option(help="Where to run: local, ray or slurm.")] = "local",
    address: Annotated[
        str, typer.Option(help="Address of the Ray cluster; auto: this machine's.")
    ] = "",
    partition: Annotated[str, typer.Option(help="SLURM partition.")] = "",
    device: DeviceOption = DeviceKind.auto,
    reports: ReportsOption = Path("reports"),
    drop: Annotated[list[str], typer.Option(help="Stop running this variant.")] = [],  # noqa: B006
    add: Annotated[list[str], typer.Option(help="Add this variant to the comparison.")] = [],  # noqa: B006
    more_seeds: Annotated[
        int, typer.Option(min=0, help="Allow this many seeds beyond the study's limit.")
    ] = 0,
    publish: Annotated[
        Path | None,
        typer.Option(
            help="Also write the page and its records to this folder, without any text of the data."
        ),
    ] = None,
) -> None:
    """Answer a question about variants: tune each, add seeds until it is decided, report."""
    from harness.runs.executor import make_executor
    from harness.runs.order import Order
    from harness.studies.open import open_study

    part = _parse_shard(shard)
    order = Order(wait=False)
    places: dict[str, str | int] = {"local": jobs, "ray": address, "slurm": partition}
    runner = make_executor(executor, _store(reports), order, places.get(executor))
    opened = open_study(name, settings, suite, runner.device(device.value), reports)
    if drop or add or more_seeds:
        opened.steer(drop, add, more_seeds)
    elif not (plan or status):
        _run(opened, runner, part)
    agenda = opened.agenda()
    if status:
        out.print(_status_table(agenda))
    _show(opened, agenda, plan=plan)
    if publish is not None:
        say(f"published: {opened.publish(agenda, publish)}")


def _store(reports: Path) -> RunStore:
    from harness.records.store import RunStore

    return RunStore(reports / "runs")


def _parse_shard(text: str) -> Shard:
    from harness.studies.drive import WHOLE, Shard

    if not text:
        return WHOLE
    number, _, count = text.partition("/")
    if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return Shard(int(number), int(count))
    raise UserError(f"--shard {text!r}", expected="a part of how many, for example 3/8")


def _run(opened: OpenStudy, executor: Executor, shard: Shard) -> None:
    """Run all that the study wants; the page is written on every ending, an interrupt too."""
    from harness.cli.display import Display
    from harness.cli.notices import Notices
    from harness.studies.drive import Driver

    def listeners(agenda: Agenda) -> list[Listener]:
        say(_round_line(agenda))
        return [Display(out), Notices(opened.findings.store)]

    preflight([arm.plan for arm in opened.comparison().arms])
    Driver(opened.agenda, opened.findings, executor, listeners).drive(shard)


def _round_line(agenda: Agenda) -> str:
    tuning = sum(job.stage == "tune" for job in agenda.jobs)
    parts = [f"{tuning} trials"] if tuning else []
    if len(agenda.jobs) > tuning:
        parts.append(f"{len(agenda.jobs) - tuning} runs for the verdict")
    return f"next: {' and '.join(parts)} ({agenda.spent.runs} are done)"


def _show(opened: OpenStudy, agenda: Agenda, *, plan: bool) -> None:
    from harness.studies.answer import answer

    found = answer(agenda)
    say(opened.study.question, style="bold")
    for line in (*found.conclusions, *found.sureness, *found.changes):
        say(f"- {line}")
    say(f"So far: {found.cost}")
    if plan:
        say(_round_line(agenda))
        return
    say(f"page: {opened.write_page(agenda)}")


def _status_table(agenda: Agenda) -> Table:
    """How far every variant is: trials, the rate they chose, seeds and what they say so far."""
    table = Table("variant", "trials", "best rate", title_justify="left")
    for setting in agenda.standings:
        table.add_column(f"seeds at {setting}")
        table.add_column(f"verdict at {setting}")
    for arm in agenda.comparison.arms:
        found = agenda.searches[arm.label]
        tried = len(found.trials) + len(found.missing)
        cells = [f"{len(found.trials)} of {tried}" if tried else "not tuned"]
        cells.append(f"{found.best:g}" if found.best is not None and arm.trains else "")
        for standing in agenda.standings.values():
            known = standing.conclusion(arm.label)
            verdict: str = known.difference.verdict if known and known.difference else ""
            if arm.label == agenda.comparison.reference:
                verdict = "reference"
            cells += [str(len(standing.runs[arm.label])), verdict]
        table.add_row(Text(arm.label), *cells)
    return table
