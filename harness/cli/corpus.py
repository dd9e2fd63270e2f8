"""Corpus: the command that shows the data of a suite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.app import out
from harness.cli.naming import NamedOption, named
from harness.cli.options import ReportsOption, SetOption
from harness.cli.sources import DataOption, ModelOption, with_sources
from harness.errors import UserError
from harness.spec import registry
from harness.spec.overrides import merge, parse_settings
from harness.spec.request import Request

if TYPE_CHECKING:
    from harness.spec.suite import Suite


def corpus(
    suite: NamedOption = "quick",
    settings: SetOption = [],  # noqa: B006 - typer copies it
    model: ModelOption = "",
    data: DataOption = "",
    samples: Annotated[int, typer.Option(help="How many conversations to show.")] = 3,
    reports: ReportsOption = Path("reports"),
) -> None:
    """Show what a suite's corpus holds and, token by token, what a model would learn from it."""
    from harness.records.store import RunStore

    asked = Request((), suite, tuple(with_sources(settings, model, data)))
    _show(_choose_suite(named(asked, RunStore(reports / "runs"))), samples)


def _choose_suite(asked: Request) -> Suite:
    changes, overrides = parse_settings(asked.settings)
    unused = sorted(set(changes) - {"training"})
    if unused:
        raise UserError(f"--set {unused[0]}.… does not affect a corpus")
    return registry.load_suite(asked.suite, merge(overrides, changes))


def _show(suite: Suite, samples: int) -> None:
    from harness.cli.display import Notes
    from harness.corpus.render import Renderer
    from harness.corpus.view import corpus_report
    from harness.weights.fetch import fetch_tokenizer, quiet_libraries
    from harness.weights.load import load_tokenizer

    with Notes(out) as notes:
        model = registry.load_model(suite.model)
        quiet_libraries()
        tokenizer = load_tokenizer(fetch_tokenizer(model, notes))
        renderer = Renderer(tokenizer, model.chat_template, suite.corpus.chat_date)
        found = corpus_report(suite, samples, renderer, notes)
    out.print(found)
