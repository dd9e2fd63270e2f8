"""Command line: parse arguments, call one function, print. The only place that prints or exits."""

from __future__ import annotations

from harness.cli.app import INTERRUPTED, app, complain, err
from harness.cli.export import export
from harness.cli.look import corpus, doctor, list_, plan, show
from harness.cli.reports import compare, report
from harness.cli.work import run
from harness.errors import HarnessError

__all__ = ["main"]

for command in (list_, show, plan, run, report, compare, corpus, doctor, export):
    app.command(command.__name__.rstrip("_"))(command)


def main() -> int:
    """Run the command line and return the exit code."""
    try:
        app()
    except HarnessError as error:
        complain(f"error: {error}")
        return error.exit_code
    except SystemExit as done:
        if done.code == INTERRUPTED:  # typer turns Ctrl-C into this code and says nothing
            err.print("interrupted", style="yellow")
        return done.code if isinstance(done.code, int) else 1
    return 0
