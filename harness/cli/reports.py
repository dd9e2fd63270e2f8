"""Reports: the commands that compare what has been run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from harness.cli.app import ReportsOption, SetOption, SuiteOption, out, say
from harness.errors import UserError
from harness.spec import registry

if TYPE_CHECKING:
    from harness.records.store import BrokenRun, StoredRun
    from harness.report.build import ReportRequest
    from harness.report.export import Format


class ReportFormat(StrEnum):
    """What to write: the pages, or all the data in one file."""

    pages = "pages"
    json = "json"
    csv = "csv"
    parquet = "parquet"


MarginOption = Annotated[
    str, typer.Option(help="Differences within this share of the score do not matter: 1%, 0.01.")
]


def report(
    suite: SuiteOption = "quick",
    settings: SetOption = [],  # noqa: B006 - typer copies it
    reports: ReportsOption = Path("reports"),
    reference: Annotated[str, typer.Option(help="Compare the others with this variant.")] = "",
    margin: MarginOption = "1%",
    budget_memory: Annotated[str, typer.Option(help="Recommend within it: 12GiB.")] = "",
    max_loss: Annotated[str, typer.Option(help="Quality to give up at most: 1%.")] = "",
    file_format: Annotated[
        ReportFormat, typer.Option("--format", help="Pages, or all the data in one file.")
    ] = ReportFormat.pages,
    publish: Annotated[
        Path | None,
        typer.Option(help="Write the pages here instead, with records that hold no data text."),
    ] = None,
) -> None:
    """Write the report of a suite's runs: markdown, HTML and figures."""
    from harness.report.build import ReportRequest
    from harness.spec.gpus import parse_memory

    name = suite_name(suite, settings)
    budget = parse_memory(budget_memory, "--budget-memory") if budget_memory else None
    request = ReportRequest(
        suite=name,
        reference=reference or None,
        margin=parse_share(margin, "--margin"),
        budget_memory_bytes=budget,
        max_loss=parse_share(max_loss, "--max-loss") if max_loss else None,
    )
    if publish is not None and file_format is not ReportFormat.pages:
        raise UserError(
            f"--publish with --format {file_format}",
            expected="one of them: what is published are pages and records",
        )
    write_suite_report(reports, name, request, file_format, publish)


def suite_name(suite: str, settings: list[str]) -> str:
    """Name under which a suite's runs are kept: changed by ``--set``, the stem of a file."""
    _, overrides = registry.parse_settings(settings)
    if overrides or suite.endswith(".toml"):
        return registry.load_suite(suite, overrides).name
    return suite


def write_suite_report(
    reports: Path,
    suite: str,
    request: ReportRequest | None = None,
    file_format: ReportFormat = ReportFormat.pages,
    publish: Path | None = None,
) -> None:
    """Build the report of one suite's runs, write it and print the ranking."""
    from harness.cli.display import Notes
    from harness.report.build import ReportRequest, build_report
    from harness.report.console import ranking_table
    from harness.report.export import export
    from harness.report.publish import publish_report
    from harness.report.write import write_report
    from harness.spec.schema import write_bytes

    folder = _page_folder(reports, suite)
    asked = request or ReportRequest(suite=suite)
    runs, broken = _find_runs(reports, suite)
    with Notes(out) as notes:
        notes.note(f"writing the report of {suite}")
        built = build_report(runs, broken, asked)
        if publish is not None:
            path = publish_report(runs, asked, publish)
        elif file_format is ReportFormat.pages:
            path = write_report(built, folder)
        else:
            path = folder / f"report.{file_format}"
            write_bytes(path, export(built, cast("Format", file_format.value)))
    out.print(ranking_table(built, out.width))
    if publish is None and folder != reports / suite:
        say(f"{reports / suite} holds a published report, which is left as it is")
    say(f"report: {path}")


def _page_folder(reports: Path, suite: str) -> Path:
    """Where a suite's pages go: beside the runs if a published report has the usual place."""
    from harness.report.publish import is_published

    usual = reports / suite
    return reports / "runs" / suite if is_published(usual) else usual


def _find_runs(reports: Path, suite: str) -> tuple[list[StoredRun], list[BrokenRun]]:
    from harness.records.store import BrokenRun, RunStore, StoredRun
    from harness.runs.supervise import settle

    store = RunStore(reports / "runs")
    settle(store, suite)
    found = list(store.scan(suite))
    runs = [item for item in found if isinstance(item, StoredRun)]
    if not runs:
        raise UserError(
            f"no runs of suite {suite}",
            where=reports / "runs",
            expected=f"one of {', '.join(store.suites()) or 'none yet'}",
            hint=None if store.suites() else "python -m harness run --variant qlora_nf4",
        )
    return runs, [item for item in found if isinstance(item, BrokenRun)]


def parse_share(text: str, option: str) -> float:
    """Read ``1%`` or ``0.01``.

    Raises:
        UserError: it is neither, or not between 0 and 1.
    """
    number, percent, _ = text.strip().partition("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise UserError(f"{option} {text!r} is not a share", expected="for example 1% or 0.01")
    return share


class ComparisonFormat(StrEnum):
    """How to print a comparison."""

    table = "table"
    json = "json"
    junit = "junit"


def compare(
    before: Annotated[str, typer.Argument(metavar="A", help="A run, a variant, or a folder.")],
    after: Annotated[str, typer.Argument(metavar="B", help="What to compare with A.")],
    suite: Annotated[
        str, typer.Option("--suite", "-s", help="Look for variants in this suite's runs only.")
    ] = "",
    fail_if: Annotated[
        list[str],
        typer.Option(
            help="Exit with 1 when this holds beyond its interval, or cannot be told: "
            "'perplexity > +1%'."
        ),
    ] = [],  # noqa: B006 - typer copies it
    margin: MarginOption = "1%",
    file_format: Annotated[
        ComparisonFormat, typer.Option("--format", help="How to print it.")
    ] = ComparisonFormat.table,
    reports: ReportsOption = Path("reports"),
) -> None:
    """Compare B with A on the same items, and fail past a bound: a gate for regressions."""
    from harness.report.compare import compare as compare_sides
    from harness.report.compare import find_side
    from harness.report.console import comparison_table, outcome_lines
    from harness.report.gate import comparison_json, comparison_junit, judge, parse_gate

    gates = [parse_gate(text) for text in fail_if]
    sides = [find_side(name, reports / "runs", suite or None) for name in (before, after)]
    comparison = compare_sides(sides[0], sides[1], parse_share(margin, "--margin"))
    outcomes = judge(comparison, gates)
    if file_format is ComparisonFormat.table:
        out.print(comparison_table(comparison))
        out.print(*outcome_lines(outcomes), sep="\n")
    elif file_format is ComparisonFormat.json:
        typer.echo(comparison_json(comparison, outcomes))
    else:
        typer.echo(comparison_junit(comparison, outcomes))
    if any(outcome.status != "passed" for outcome in outcomes):
        raise typer.Exit(1)
