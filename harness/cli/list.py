"""List: the command that names what there is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from harness.cli.app import out
from harness.cli.options import ReportsOption, runs_folder
from harness.cli.terminal import visible
from harness.errors import UnknownName, UserError
from harness.spec.listing import descriptions, variants_markdown

if TYPE_CHECKING:
    from harness.records.store import BrokenRun, RunLine


NARROW = 90
SHORTEST = 12  # letters of a name


class Kind(StrEnum):
    """What can be listed."""

    variants = "variants"
    suites = "suites"
    models = "models"
    studies = "studies"
    tasks = "tasks"
    runs = "runs"
    methods = "methods"


def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")] = Kind.variants,
    reports: ReportsOption = Path("reports"),
    suite: Annotated[
        str, typer.Option("--suite", "--name", "-s", help="List the runs of this name only.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print variants or methods as a Markdown table.")
    ] = False,
) -> None:
    """List variants, suites, models, studies, tasks, runs, or which methods work on which bases."""
    if suite and kind is not Kind.runs:
        raise UserError(f"--suite {suite} does not go with {kind.value}", expected="list runs")
    found = _lines(reports, suite) if kind is Kind.runs else iter(())
    if kind is Kind.tasks and not markdown:
        _print_tasks(as_json=as_json)
    elif as_json:
        typer.echo(visible(json.dumps(_data(kind, found), indent=1)))
    elif markdown:
        typer.echo(_markdown(kind))
    elif kind is Kind.methods:
        typer.echo(visible(_methods()))
    else:
        out.print(_runs_table(found) if kind is Kind.runs else _names_table(kind))


def _markdown(kind: Kind) -> str:
    if kind is Kind.methods:
        from harness.spec.plane import plane_markdown, read_plane

        return plane_markdown(read_plane())
    if kind is Kind.variants:
        return variants_markdown()
    raise UserError(
        f"{kind.value} cannot be printed as Markdown",
        where="--markdown",
        expected="variants or methods",
    )


def _print_tasks(*, as_json: bool) -> None:
    """A line for each of thousands of names, so that grep finds one."""
    from harness.score.catalogue import every_task

    names = every_task()
    typer.echo(visible(json.dumps(names, indent=1) if as_json else "\n".join(names)))


def _methods() -> str:
    from harness.spec.plane import plane_text, read_plane

    return plane_text(read_plane(), out.width)


def _data(kind: Kind, runs: Iterable[RunLine | BrokenRun]) -> list[dict[str, Any]]:
    if kind is Kind.methods:
        from harness.spec.plane import read_plane

        return [row.model_dump(mode="json") for row in read_plane().rows]
    if kind is not Kind.runs:
        return [{"name": name, "description": text} for name, text in _described(kind)]
    return [_run_data(run) for run in runs]


def _described(kind: Kind) -> list[tuple[str, str]]:
    return descriptions(kind.value)


def _lines(reports: Path, suite: str) -> Iterator[RunLine | BrokenRun]:
    """Every run (under one name), after what was given up has become a record too."""
    from harness.records.store import RunStore
    from harness.runs.supervise import settle

    store = RunStore(runs_folder(reports))
    if suite and suite not in store.suites():
        raise UnknownName("name of runs", suite, store.suites(), where=store.root)
    settle(store, suite or None)
    return store.lines(suite or None)


def _run_data(run: RunLine | BrokenRun) -> dict[str, Any]:
    from harness.records.store import BrokenRun

    if isinstance(run, BrokenRun):
        return {"folder": str(run.folder.path), "status": "unreadable", "error": run.error.what}
    about = run.model_dump(mode="json", include={"status", "started_at", "seconds"})
    return {**run.plan.model_dump(mode="json"), **about}


def _names_table(kind: Kind) -> Table:
    table = Table("name", "description", title=str(kind), title_justify="left")
    for name, description in _described(kind):
        table.add_row(name, description)
    return table


def _runs_table(runs: Iterable[RunLine | BrokenRun]) -> Table:
    from harness.records.store import RunLine

    titles = ["suite", "variant", "seed", "status", "minutes", "started"]
    if out.width < NARROW:  # what tells runs apart stays
        titles = titles[:4]
    table = Table(*titles, title_justify="left")
    for readable, alike in groupby(runs, lambda run: isinstance(run, RunLine)):
        rows = [_run_cells(run) for run in alike]
        if readable:
            # Drawing a row costs rich as much as drawing a dozen lines in one row's cells.
            rows = [["\n".join(column) for column in zip(*_shortened(rows), strict=True)]]
        for row in rows:
            cells = row[: len(titles)] if readable else _fitted(row, len(titles))
            table.add_row(*(Text(cell, overflow="ellipsis", no_wrap=readable) for cell in cells))
    return table


def _fitted(row: list[str], count: int) -> list[str]:
    """A problem's cells in so many columns: what it says is never left out."""
    return row if len(row) == count else [*row[: count - 1], row[-1]]


def _shortened(rows: list[list[str]]) -> list[list[str]]:
    """The rows with long names cut in their middle, where the terminal has no room for them."""
    fixed = sum(max(len(row[index]) for row in rows) for index in range(2, len(rows[0])))
    if out.width < NARROW:
        fixed = sum(max(len(row[index]) for row in rows) for index in (2, 3))
    columns = 4 if out.width < NARROW else 6
    room = max(SHORTEST, (out.width - fixed - 3 * columns - 1) // 2)
    if all(len(name) <= room for row in rows for name in row[:2]):
        return rows
    from harness.report.layout import shorten

    names = [shorten(sorted({row[index] for row in rows}), room) for index in (0, 1)]
    return [[names[0][row[0]], names[1][row[1]], *row[2:]] for row in rows]


def _run_cells(run: RunLine | BrokenRun) -> list[str]:
    from harness.records.store import BrokenRun

    if isinstance(run, BrokenRun):
        return [str(run.folder.path), "", "", "unreadable", "", run.error.what]
    name, minutes = run.plan, f"{run.seconds / 60:.1f}"
    return [name.suite, name.variant, str(name.seed), run.status, minutes, run.started_at]
