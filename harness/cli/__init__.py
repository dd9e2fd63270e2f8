"""Command line: a file for each command. The only place that prints or exits."""

from __future__ import annotations

import logging
import shlex
import sys
from contextlib import suppress
from pathlib import Path

from harness.cli.app import INTERRUPTED, app, complain, err
from harness.cli.card import card
from harness.cli.chat import chat
from harness.cli.claims import claims
from harness.cli.compare import compare
from harness.cli.corpus import corpus
from harness.cli.doctor import doctor
from harness.cli.export import export
from harness.cli.generate import generate
from harness.cli.list import list_
from harness.cli.plan import plan
from harness.cli.push import push
from harness.cli.report import report
from harness.cli.run import run
from harness.cli.show import show
from harness.cli.study import study
from harness.cli.terminal import accept_any_text, give_up_output
from harness.errors import HarnessError

__all__ = ["main"]

COMMANDS = (
    *(list_, show, plan, run, report, compare),
    *(corpus, doctor, export, chat, generate, card, push, study, claims),
)
for command in COMMANDS:
    app.command(command.__name__.rstrip("_"))(command)


def main() -> int:
    """Run the command line and return the exit code."""
    accept_any_text()
    # Its advice to install one more package comes when peft imports it, also where nothing runs.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        code = _command()
        sys.stdout.flush()
    except OSError as error:
        give_up_output()
        with suppress(OSError):
            complain(f"error: {_said(error)}")
        return 1
    return code


def _command() -> int:
    try:
        app()
    except HarnessError as error:
        complain(f"error: {error}")
        return error.exit_code
    except SystemExit as done:
        if done.code == INTERRUPTED:  # typer turns Ctrl-C into this code and says nothing
            err.print("interrupted", style="yellow")
            if sys.argv[1:2] in (["run"], ["study"]):
                complain(f"To resume: {_typed()}", style="yellow")
        return done.code if isinstance(done.code, int) else 1
    return 0


def _typed() -> str:
    """The command as it was typed; what it has finished is not done again."""
    script = Path(sys.argv[0]).name == "harness"
    start = ["harness"] if script else ["python", "-m", "harness"]
    return shlex.join([*start, *sys.argv[1:]])


def _said(error: OSError) -> str:
    """What the system refused; an error without a file's name is one of the output."""
    what = error.strerror or str(error)
    if error.filename is None:
        return f"cannot write the output: {what}"
    return f"{what}\n  where:    {error.filename}"
