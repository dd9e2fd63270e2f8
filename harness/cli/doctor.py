"""Doctor: the command that says what this machine can do."""

from __future__ import annotations

from rich.table import Table

from harness.cli.app import out


def doctor() -> None:
    """Show what this machine can do, what is missing, and how to get it."""
    from harness.doctor import examine

    table = Table("check", "found", "advice", title_justify="left")
    for check in examine():
        mark = {True: "[green]ok[/]", False: "[red]missing[/]", None: "[yellow]note[/]"}[check.ok]
        table.add_row(f"{mark} {check.name}", check.found, check.advice)
    out.print(table)
