"""Show: the command that spells a variant, a suite or a model out."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.app import out
from harness.cli.options import SuiteOption
from harness.spec import registry


def show(
    name: Annotated[str, typer.Argument(help="A variant, suite or model.")],
    suite: SuiteOption = "quick",
) -> None:
    """Show a variant (resolved under a suite), a suite or a model, every value spelled out."""
    out.print_json(registry.show(name, suite))
