"""Doctor: the command that says what this machine can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from harness.cli.app import out

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.doctor import Check

MARKS = {True: "[green]ok[/]", False: "[red]missing[/]", None: "[yellow]note[/]"}
WRONG = "[red]wrong[/]"


def doctor(
    gpus: Annotated[
        bool,
        typer.Option(
            "--gpus",
            help="Also train a tiny model on several devices, in every way that several can share "
            "a run, and say which give what one device gives. Takes a minute or two.",
        ),
    ] = False,
    devices: Annotated[
        int,
        typer.Option(
            "--devices",
            min=0,
            metavar="N",
            help="With --gpus: how many devices.",
            show_default="all GPUs, or two processes on the CPU",
        ),
    ] = 0,
) -> None:
    """Show what this machine can do, what is missing, and how to get it."""
    from harness.doctor import examine, examine_together
    from harness.errors import UserError

    if devices and not gpus:
        raise UserError(f"--devices {devices} without --gpus", expected="both, or neither")
    _print(examine(), MARKS)
    if gpus:
        wrong = {**MARKS, False: WRONG}
        if not _print(examine_together(devices), wrong):
            raise typer.Exit(1)


def _print(checks: Iterable[Check], marks: dict[bool | None, str]) -> bool:
    """A table of the checks; returns whether none failed."""
    table = Table("check", "found", "advice", title_justify="left")
    good = True
    for check in checks:
        table.add_row(f"{marks[check.ok]} {check.name}", check.found, check.advice)
        good = good and check.ok is not False
    out.print(table)
    return good
