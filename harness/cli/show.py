"""Show: the command that spells a variant, suite, model or study out."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.app import out
from harness.cli.options import SuiteOption
from harness.spec import registry


def show(
    name: Annotated[str, typer.Argument(help="A variant, suite, model or study.")],
    suite: SuiteOption = "quick",
) -> None:
    """Show a variant (resolved under a suite), suite, model or study, all spelled out."""
    out.print_json(registry.show(name, suite))
