"""Report: the command that writes the comparative report of a suite's runs."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from harness.cli.app import out, say, warn
from harness.cli.naming import NamedOption, named
from harness.cli.options import MarginOption, ReportsOption, SetOption, parse_share
from harness.errors import UserError
from harness.spec.request import Request, requested_suite

if TYPE_CHECKING:
    from harness.records.store import BrokenRun, StoredRun
    from harness.report.build import Report, ReportRequest
    from harness.report.export import Format
    from harness.report.interchange import Layout


class ReportFormat(StrEnum):
    """What to write: the pages, all the data in one file, or files that others' tools read."""

    pages = "pages"
    json = "json"
    csv = "csv"
    parquet = "parquet"
    lm_eval = "lm-eval"
    every_eval_ever = "every-eval-ever"


def report(
    suite: NamedOption = "quick",
    settings: SetOption = [],  # noqa: B006 - typer copies it
    reports: ReportsOption = Path("reports"),
    reference: Annotated[str, typer.Option(help="Variant that the others are compared with.")] = "",
    margin: MarginOption = "1%",
    budget_memory: Annotated[
        str,
        typer.Option(
            help="Recommend only variants that fit into this memory (12GiB): a GPU's where they "
            "ran on one, and resident memory where they ran on a processor."
        ),
    ] = "",
    max_loss: Annotated[
        str,
        typer.Option(
            help="Recommend only variants that are shown to lose at most this much against the "
            "reference (--reference): 1%."
        ),
    ] = "",
    file_format: Annotated[
        ReportFormat,
        typer.Option(
            "--format",
            help="Pages, all data as json, csv or parquet, or the result files of other tools.",
        ),
    ] = ReportFormat.pages,
    publish: Annotated[
        Path | None,
        typer.Option(
            help="Write the report and its records to this folder, without any text of the data."
        ),
    ] = None,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Serve the page on localhost and rebuild it after every run."),
    ] = False,
    port: Annotated[int, typer.Option(help="Port for --serve; 0: any free port.")] = 8765,
) -> None:
    """Write the report of a suite's runs: markdown, HTML and figures."""
    _check_format(file_format, publish)
    name = _suite_name(suite, settings, reports)
    request = _make_request(name, reference, margin, budget_memory, max_loss)
    if serve:
        _serve(reports, request, port)
    else:
        write_suite_report(reports, name, request, file_format, publish)


def _serve(reports: Path, request: ReportRequest, port: int) -> None:
    """Show the page on this machine until Ctrl-C; runs may go on meanwhile."""
    from harness.report.serve import LiveReport, make_server

    try:
        server = make_server(LiveReport(reports / "runs", request, warn), port)
    except OSError as error:
        raise UserError(
            f"cannot listen on port {port}: {error.strerror}",
            expected="a free port",
            hint="--port 0",
        ) from None
    say(f"http://127.0.0.1:{server.server_port}/ shows {request.suite}; Ctrl-C ends it")
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("ended")


def _check_format(file_format: ReportFormat, publish: Path | None) -> None:
    if publish is not None and file_format is not ReportFormat.pages:
        raise UserError(
            f"--publish with --format {file_format}",
            expected="one of the two: only pages and their records can be published",
        )


def _make_request(
    suite: str, reference: str, margin: str, budget_memory: str, max_loss: str
) -> ReportRequest:
    from harness.report.build import ReportRequest
    from harness.spec.gpus import parse_memory

    return ReportRequest(
        suite=suite,
        reference=reference or None,
        margin=parse_share(margin, "--margin"),
        budget_memory_bytes=parse_memory(budget_memory, "--budget-memory")
        if budget_memory
        else None,
        max_loss=parse_share(max_loss, "--max-loss") if max_loss else None,
    )


def _suite_name(suite: str, settings: list[str], reports: Path) -> str:
    """Name under which a suite's runs are kept: changed by ``--set``, the stem of a file."""
    from harness.records.store import RunStore

    if not settings and not suite.endswith(".toml"):
        return suite
    asked = Request((), suite, tuple(settings))
    return requested_suite(named(asked, RunStore(reports / "runs"))).name


def write_suite_report(
    reports: Path,
    suite: str,
    request: ReportRequest | None = None,
    file_format: ReportFormat = ReportFormat.pages,
    publish: Path | None = None,
) -> Path:
    """Build the report of one suite's runs, write it and print the ranking; returns its path."""
    from harness.cli.display import Notes
    from harness.report.answer import answer_lines
    from harness.report.browse import items_page
    from harness.report.build import ReportRequest, build_report
    from harness.report.console import ranking_table
    from harness.report.publish import publish_report
    from harness.report.write import write_report

    folder = _page_folder(reports, suite)
    asked = request or ReportRequest(suite=suite)
    runs, broken = _find_runs(reports, suite)
    warn_of_unreadable(broken)
    with Notes(out) as notes:
        notes.note(f"writing the report of {suite}")
        built = build_report(runs, broken, asked)
        if publish is not None:
            path = publish_report(runs, asked, publish)
        elif file_format is ReportFormat.pages:
            path = write_report(built, folder, items_page(built), linked=True)
        else:
            path = _write_data(built, folder, file_format)
    out.print(ranking_table(built, out.width))
    if publish is None and folder != reports / suite:
        say(f"{reports / suite} holds a published report, which is left as it is")
    for line in answer_lines(built.evidence):
        say(line)
    say(f"report: {path}")
    return path


def _write_data(built: Report, folder: Path, file_format: ReportFormat) -> Path:
    """Write a report's data; the file, or the folder of a layout that has many."""
    from harness.report.export import export
    from harness.report.interchange import interchange
    from harness.spec.storage import write_bytes

    if file_format not in (ReportFormat.lm_eval, ReportFormat.every_eval_ever):
        path = folder / f"report.{file_format}"
        write_bytes(path, export(built, cast("Format", file_format.value)))
        return path
    for name, content in interchange(built, cast("Layout", file_format.value)).items():
        write_bytes(folder / file_format / name, content)
    return folder / file_format


def _page_folder(reports: Path, suite: str) -> Path:
    """Where a suite's pages go: beside the runs if a published report has the usual place."""
    from harness.report.publish import is_published

    usual = reports / suite
    return reports / "runs" / suite if is_published(usual) else usual


def _find_runs(reports: Path, suite: str) -> tuple[list[StoredRun], list[BrokenRun]]:
    from harness.records.store import BrokenRun, RunStore, StoredRun
    from harness.report.trust import trusted
    from harness.runs.supervise import settle

    store = RunStore(reports / "runs")
    settle(store, suite)
    found = list(trusted(store.scan(suite)))
    runs = [item for item in found if isinstance(item, StoredRun)]
    broken = [item for item in found if isinstance(item, BrokenRun)]
    if broken and not runs:  # what is wrong with them says more than that there are none
        raise broken[0].error
    if not runs:
        there = store.suites()
        close = difflib.get_close_matches(suite, there)
        asked = f"did you mean {' or '.join(close)}?" if close else None
        elsewhere = "" if reports == Path("reports") else f" --reports {shlex.quote(str(reports))}"
        raise UserError(
            f"no runs of suite {suite}",
            where=reports / "runs",
            expected=f"one of {', '.join(there)}" if there else "runs: there are none yet",
            hint=asked if there else f"python -m harness run --variant qlora_nf4{elsewhere}",
        )
    return runs, broken


def warn_of_unreadable(broken: Iterable[BrokenRun]) -> None:
    """One line for each record that is left out because it cannot be read."""
    for run in broken:
        warn(f"left out, cannot be read: {run.folder.record}: {run.error.what}")
