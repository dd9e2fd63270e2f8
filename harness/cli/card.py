"""Card: the command that writes a run's model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.app import say
from harness.cli.options import (
    FormOption,
    QuantOption,
    ReportsOption,
    RunArgument,
    full_form,
    runs_folder,
)
from harness.errors import UserError
from harness.spec.form import parse_form


def card(
    run: RunArgument,
    form: FormOption = "adapter",
    quant: QuantOption = "",
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", help="Folder for README.md and .eval_results/; default: print the card."
        ),
    ] = None,
    reports: ReportsOption = Path("reports"),
) -> None:
    """Write a model card for a run: base, data, method, scores with intervals, limits, command."""
    wanted = parse_form(full_form(form, quant), where="--form")
    from harness.deploy.card import make_card
    from harness.deploy.results import find_result

    if to is not None and (to / "README.md").exists():
        raise UserError("there is a card already", where=to / "README.md", hint="delete it first")
    made = make_card(find_result(run, runs_folder(reports)), wanted)
    if to is None:
        say(made.text)
    else:
        made.write(to)
        say(f"card: {to / 'README.md'}")
