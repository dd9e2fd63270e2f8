"""Claims: the command that lists published claims, and judges them from runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from harness.cli.app import out, say
from harness.cli.report import warn_of_unreadable
from harness.cli.terminal import visible
from harness.errors import UserError
from harness.spec import registry

if TYPE_CHECKING:
    from harness.records.store import StoredRun
    from harness.report.claims.judge import Judgement
    from harness.spec.claim import Claim

COLOURS = {"reproduced": "green", "contradicted": "red"}


def claims(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUNS...", help="Folders with records: judge the claims by them."),
    ] = [],  # noqa: B006 - typer copies it
    claim: Annotated[
        list[str], typer.Option("--claim", help="Only these: a built-in claim or a TOML file.")
    ] = [],  # noqa: B006
    publish: Annotated[
        Path | None,
        typer.Option(help="Write FINDINGS.md here, with records that hold no data text."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdicts as JSON.")] = False,
    markdown: Annotated[
        bool,
        typer.Option(help="Print what README says of one published folder, and nothing else."),
    ] = False,
) -> None:
    """List published claims about fine-tuning; with RUNS, judge each from their records."""
    asked = [registry.load_claim(name) for name in claim or registry.claim_names()]
    if publish is not None and not runs:
        raise UserError("--publish without runs", expected="folders with records to judge by")
    if markdown:
        typer.echo(visible(_brief(runs)), nl=False)
        return
    if not runs:
        _list(asked, as_json=as_json)
        return
    found = _read(runs)
    _judge(asked, found, as_json=as_json)
    if publish is not None:
        from harness.report.claims.publish import publish_findings

        say(f"findings: {publish_findings(asked, found, publish, runs)}")


def _brief(runs: Sequence[Path]) -> str:
    from harness.report.claims.brief import findings_brief
    from harness.report.claims.publish import FINDINGS

    if len(runs) != 1 or not (runs[0] / FINDINGS).is_file():
        where = runs[0] if len(runs) == 1 else None
        what = f"--markdown takes one folder with a {FINDINGS}"
        raise UserError(what, where=where, hint="claims RUNS --publish FOLDER writes one")
    return findings_brief(runs[0].resolve())


def _read(folders: Sequence[Path]) -> list[StoredRun]:
    from harness.report.sides import read_runs

    found: list[StoredRun] = []
    for folder in folders:
        runs, broken = read_runs(folder)
        warn_of_unreadable(broken)
        if not runs:
            raise UserError("no record in this folder", where=folder, expected="record.json below")
        found += runs
    return found


def _list(asked: Sequence[Claim], *, as_json: bool) -> None:
    if as_json:
        typer.echo(
            visible(json.dumps([claim.model_dump(mode="json") for claim in asked], indent=1))
        )
        return
    table = Table("claim", "sentence", "source", title_justify="left")
    for claim in asked:
        source = f"{claim.source.link} {claim.source.place}".strip()
        table.add_row(Text(claim.name), Text(claim.sentence), Text(source))
    out.print(table)
    say("To judge them: python -m harness claims FOLDER, with the records of runs or of a report")


def _judge(asked: Sequence[Claim], runs: Sequence[StoredRun], *, as_json: bool) -> None:
    from harness.report.claims.judge import judge
    from harness.report.claims.page import by_verdict

    judged = judge(asked, runs)
    if as_json:
        typer.echo(visible(json.dumps([_data(one) for one in by_verdict(judged)], indent=1)))
    else:
        show_verdicts(judged)


def show_verdicts(found: Sequence[Judgement]) -> None:
    """Print the verdicts as a table, the settled ones first."""
    from harness.report.claims.judge import main_judged
    from harness.report.claims.page import by_verdict, evidence, size_claimed, size_here, summary

    judged = by_verdict(found)
    main = main_judged(judged)
    table = Table("claim", "verdict", "for", "claimed for", "evidence", title_justify="left")
    for one in judged:
        verdict = Text(one.outcome, style=COLOURS.get(one.outcome, "dim"))
        cells = (size_here(one, main), size_claimed(one), evidence(one))
        table.add_row(Text(one.claim.name), verdict, *map(Text, cells))
    out.print(table)
    say(summary(judged))


def _data(one: Judgement) -> dict[str, object]:
    return {
        "claim": one.claim.name,
        "verdict": one.outcome,
        "ground": one.ground.title if one.ground else None,
        "billions": one.ground.billions if one.ground else None,
        "elsewhere": one.elsewhere,
        "checks": [
            {
                "outcome": finding.outcome,
                "p_value": finding.p_value,
                "text": finding.measured.text,
                "would_decide": finding.measured.decides or None,
            }
            for finding in one.findings
        ],
    }
