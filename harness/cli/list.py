"""List: the command that names what there is."""

from __future__ import annotations

from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from harness.cli.app import out
from harness.cli.options import ReportsOption
from harness.spec import registry

if TYPE_CHECKING:
    from harness.records.store import BrokenRun, RunLine


class Kind(StrEnum):
    """What can be listed."""

    variants = "variants"
    suites = "suites"
    models = "models"
    studies = "studies"
    runs = "runs"


def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")] = Kind.variants,
    reports: ReportsOption = Path("reports"),
) -> None:
    """List variants, suites, models, studies or runs."""
    table = _runs_table(reports) if kind is Kind.runs else _names_table(kind)
    out.print(table)


def _names_table(kind: Kind) -> Table:
    table = Table("name", "description", title=str(kind), title_justify="left")
    for name, description in registry.descriptions(kind.value):
        table.add_row(name, description)
    return table


def _runs_table(reports: Path) -> Table:
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
    return table


def _run_cells(run: RunLine | BrokenRun) -> list[str]:
    from harness.records.store import BrokenRun

    if isinstance(run, BrokenRun):
        return [str(run.folder.path), "", "", "unreadable", "", run.error.what]
    name, minutes = run.plan, f"{run.seconds / 60:.1f}"
    return [name.suite, name.variant, str(name.seed), run.status, minutes, run.started_at]
