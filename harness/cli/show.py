"""Show: the command that spells a variant, a suite or a model out."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.app import out
from harness.cli.checks.plans import check_fields
from harness.cli.options import SuiteOption
from harness.spec import registry
from harness.spec.variant import Variant


def show(
    name: Annotated[str, typer.Argument(help="A variant, suite, model or study.")],
    suite: SuiteOption = "quick",
) -> None:
    """Show every setting of a variant (as resolved under a suite), suite, model or study."""
    found = registry.find(name, suite)
    if isinstance(found, Variant) and found.adapter is not None:
        check_fields(found.adapter, name)
    out.print_json(found.model_dump_json(indent=2))
