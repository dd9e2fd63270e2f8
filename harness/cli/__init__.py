"""Command line: a file for each command. The only place that prints or exits."""

from __future__ import annotations

from harness.cli.app import INTERRUPTED, app, complain, err
from harness.cli.compare import compare
from harness.cli.corpus import corpus
from harness.cli.doctor import doctor
from harness.cli.export import export
from harness.cli.list import list_
from harness.cli.plan import plan
from harness.cli.report import report
from harness.cli.run import run
from harness.cli.show import show
from harness.cli.study import study
from harness.errors import HarnessError

__all__ = ["main"]

for command in (list_, show, plan, run, report, compare, corpus, doctor, export, study):
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
