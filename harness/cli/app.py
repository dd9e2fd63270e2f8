"""App: the typer application and its consoles."""

from __future__ import annotations

from typing import Annotated

import typer

from harness import __version__
from harness.cli.terminal import Door

INTERRUPTED = 130
app = typer.Typer(
    name="harness",
    help="Which fine-tuning variant should I use, what does it cost, and can I trust the answer?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Door()
err = Door(stderr=True)


def _print_version(asked: bool) -> None:  # noqa: FBT001 - called by typer
    if asked:
        out.print(f"finetune-harness {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version and exit.",
            is_eager=True,
            callback=_print_version,
        ),
    ] = False,
) -> None:
    """Options before any command."""


def complain(text: str, style: str = "red") -> None:
    """Print a problem to standard error, as it is.

    Where a frame is drawn on the same terminal, it goes through the frame's own door: rich would
    not know of the lines, and draw over some of them.
    """
    door = out if out.drawing and err.is_terminal else err
    door.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def warn(text: str) -> None:
    """Print to standard error what a reader should know although the command goes on."""
    complain(text, style="yellow")


def say(text: str, style: str = "") -> None:
    """Print a line as it is: no markup, no wrapping."""
    out.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
