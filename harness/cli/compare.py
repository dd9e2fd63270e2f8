"""Compare: the command that compares two runs, variants or folders, and gates regressions."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.app import out
from harness.cli.options import MarginOption, ReportsOption, parse_share, runs_folder
from harness.cli.report import warn_of_unreadable
from harness.cli.terminal import visible

if TYPE_CHECKING:
    from harness.records.store import BrokenRun
    from harness.report.compare import Comparison
    from harness.report.gate import GateResult


class ComparisonFormat(StrEnum):
    """How to print a comparison."""

    table = "table"
    json = "json"
    junit = "junit"


def compare(
    before: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="A variant, SUITE/VARIANT, SUITE/VARIANT/SEED, a run's folder, or a folder of "
            "records.",
        ),
    ],
    after: Annotated[str, typer.Argument(metavar="B", help="What to compare with A.")],
    suite: Annotated[
        str,
        typer.Option(
            "--suite", "--name", "-s", help="Look for variants in the runs of this name only."
        ),
    ] = "",
    fail_if: Annotated[
        list[str],
        typer.Option(
            help="Such as 'perplexity > +1%': fail if the whole interval lies beyond the bound or "
            "the score is missing."
        ),
    ] = [],  # noqa: B006 - typer copies it
    margin: MarginOption = "1%",
    file_format: Annotated[
        ComparisonFormat, typer.Option("--format", help="Output format.")
    ] = ComparisonFormat.table,
    reports: ReportsOption = Path("reports"),
) -> None:
    """Compare B with A on the same items; with --fail-if, a gate against regressions."""
    from harness.report.gate import judge, parse_gate

    gates = [parse_gate(text) for text in fail_if]
    comparison = _compare((before, after), reports, suite, parse_share(margin, "--margin"))
    warn_of_unreadable({run.folder.path: run for run in _unreadable(comparison)}.values())
    outcomes = judge(comparison, gates)
    _print(comparison, outcomes, file_format)
    if any(outcome.status != "passed" for outcome in outcomes):
        raise typer.Exit(1)


def _compare(names: tuple[str, str], reports: Path, suite: str, margin: float) -> Comparison:
    from harness.report.compare import compare as compare_sides
    from harness.report.sides import find_side

    before, after = (find_side(name, runs_folder(reports), suite or None) for name in names)
    return compare_sides(before, after, margin)


def _unreadable(comparison: Comparison) -> tuple[BrokenRun, ...]:
    return comparison.before.broken + comparison.after.broken


def _print(
    comparison: Comparison, outcomes: Sequence[GateResult], file_format: ComparisonFormat
) -> None:
    from harness.report.console import comparison_table, outcome_lines
    from harness.report.gate import comparison_json, comparison_junit

    if file_format is ComparisonFormat.table:
        out.print(comparison_table(comparison))
        out.print(*outcome_lines(outcomes), sep="\n")
    elif file_format is ComparisonFormat.json:
        typer.echo(visible(comparison_json(comparison, outcomes)))
    else:
        typer.echo(visible(comparison_junit(comparison, outcomes)))
