"""Card: a model card of one run: base, data, method, metrics with intervals, limits, command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import numbers
from harness.deploy.facts import (
    MeasuredScore,
    ResultFacts,
    facts_of,
    form_name,
    metadata,
    result_files,
)
from harness.deploy.results import check_deployable
from harness.records.store import BrokenRun, StoredRun
from harness.report.reproduce import command
from harness.report.trust import trusted
from harness.spec.form import Form
from harness.spec.model import HubSource
from harness.spec.plan import Plan
from harness.spec.storage import write_bytes
from harness.spec.suite import HUB_SOURCE

RESULTS = ".eval_results"
NOT_STATED = "not stated"
APACHE = "Apache-2.0"
OASST = ("OpenAssistant/oasst1", "OpenAssistant/oasst2")


@dataclass(frozen=True)
class Card:
    """A model card, and the hub's evaluation-results files by their names."""

    text: str
    results: dict[str, str]

    def write(self, folder: Path) -> None:
        """Write ``README.md`` and ``.eval_results/`` into an existing folder."""
        write_bytes(folder / "README.md", self.text.encode())
        for name, text in self.results.items():
            write_bytes(folder / RESULTS / name, text.encode())


def make_card(run: StoredRun, form: Form) -> Card:
    """The card of a run's result in a form.

    Metrics are those of the form where the run scored it, and else of the model as trained, which
    the card then says. Nothing is asked of the network.

    Raises:
        UserError: the run left nothing to deploy.
        InvalidFile: its scores are not the ones that its items give.
    """
    check_deployable(run)
    (found,) = trusted([run])
    if isinstance(found, BrokenRun):
        raise found.error
    facts = facts_of(found, form)
    text = f"---\n{metadata(facts).to_yaml()}\n---\n\n{_body(facts)}"
    return Card(text, result_files(facts))


def _body(facts: ResultFacts) -> str:
    sections = (
        _opening(facts),
        _base_and_data(facts),
        _method(facts),
        _metrics(facts),
        _limits(facts),
        _how(facts),
    )
    return "\n\n".join(sections) + "\n"


def _opening(facts: ResultFacts) -> str:
    plan = facts.plan
    return (
        f"# {plan.variant} on {plan.model.name}\n\n"
        f"The result of one fine-tuning run, seed {plan.seed}, in the form "
        f"`{form_name(facts.form.name)}`."
    )


def _base_and_data(facts: ResultFacts) -> str:
    plan, corpus = facts.plan, facts.record.corpus
    source = plan.model.source
    name = _plain(corpus.name if corpus else plan.corpus.source)
    at = f" ({source.repository} at {source.revision})" if isinstance(source, HubSource) else ""
    lines = [
        "## Base and data",
        "",
        f"- Base model: {_plain(plan.model.description)}{at}; licence {plan.model.license}",
        f"- Data: {name}; licence {data_license(plan)}",
    ]
    if plan.corpus_sha256 is not None:
        lines.append(f"- SHA-256 of the data: `{plan.corpus_sha256}`")
    if corpus is not None:
        lines.append(
            f"- {corpus.train_conversations:,} conversations to train on, "
            f"{corpus.held_out_conversations:,} held out, split by message tree"
        )
    return "\n".join(lines)


def data_license(plan: Plan) -> str:
    """The licence of a corpus, where it is known: the bundled sample and OASST on the hub."""
    hub = HUB_SOURCE.fullmatch(plan.corpus.source)
    if plan.corpus.source == "sample":
        return APACHE
    return APACHE if hub is not None and hub["repository"] in OASST else NOT_STATED


def _method(facts: ResultFacts) -> str:
    plan, record = facts.plan, facts.record
    adapter = plan.adapter
    shown = {} if adapter is None else dict(sorted(adapter.fields.items()))
    fields = ", ".join(f"{key} = {value}" for key, value in shown.items())
    lines = [
        "## Method",
        "",
        f"- {adapter.type if adapter else plan.method}" + (f": {_plain(fields)}" if fields else ""),
        f"- Base weights in training: {plan.quantization.type or plan.stored}",
    ]
    if record.census is not None:
        lines.append(f"- {record.census.trainable:,} trained parameters")
    training = record.training
    if training is not None:
        lines.append(
            f"- {training.steps:,} steps of {plan.budget.batch_size} rows, "
            f"{training.tokens.non_padding:,} tokens, of which {training.tokens.assistant:,} "
            "carried loss"
        )
    return "\n".join(lines)


def _metrics(facts: ResultFacts) -> str:
    if not facts.measured:
        return "## Metrics\n\nThe run took no scores."
    lines = ["## Metrics", ""]
    if facts.scored != facts.form:
        lines.append(
            f"The form `{facts.form.name}` was not scored itself. The values are those of the "
            "model as trained, an adapter on its own base.\n"
        )
    lines += ["| metric | value | 95 % interval | items | better |", "|---|---|---|---|---|"]
    for item in facts.measured:
        ends = item.interval
        shown = NOT_STATED if ends is None else " to ".join(numbers.number(end) for end in ends)
        lines.append(
            f"| {_plain(item.name)} | {numbers.number(item.value.value)} {item.score.unit} | "
            f"{shown} | {item.score.n:,} | {item.score.direction} |"
        )
    return "\n".join(lines)


def _limits(facts: ResultFacts) -> str:
    plan = facts.plan
    lines = [
        "## Limits",
        "",
        "- This is one training with one seed. The intervals cover the choice of scored items,",
        "  not the choice of seed.",
        "- Nothing here tests safety, truth or bias beyond the scores above.",
        "- The limits and the licence of the base model still apply.",
    ]
    if plan.model.is_random:
        lines.append("- The base weights are random: the scores mean nothing.")
    if plan.corpus.source == "sample":
        lines.append("- The data are a small sample, written to try the harness out.")
    for name, asked in sorted(_limited(facts.measured).items()):
        lines.append(f"- {name} was scored on its first {asked:,} items only.")
    return "\n".join(lines)


def _limited(measured: Sequence[MeasuredScore]) -> dict[str, int]:
    found = {}
    for item in measured:
        limit = item.score.details.get("limit")
        if isinstance(limit, int):
            found[item.score.task] = limit
    return found


def _how(facts: ResultFacts) -> str:
    environment = facts.record.environment
    commit = environment.commit if environment else None
    at = f"Commit `{commit}` of the harness:" if commit else "With the harness:"
    return f"## How it was made\n\n{at}\n\n```sh\n{command(facts.plan, [facts.plan.seed])}\n```"


def _plain(text: str) -> str:
    """One line of text that no Markdown table or list is broken by."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
