"""Facts: what a model card states of a run, and its metadata as the hub reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.records.record import RunRecord, Score
from harness.records.store import StoredRun
from harness.report.build import ReportRequest
from harness.report.evidence import gather
from harness.report.publish import without_folders
from harness.report.scoring import RowScore
from harness.spec.form import Form
from harness.spec.model import HubSource
from harness.spec.plan import Plan
from harness.spec.suite import HUB_SOURCE

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

# The hub's own identifiers of licences, of those that base models commonly have.
HUB_LICENSES = (
    *("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0"),
    *("gemma", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "openrail"),
)
UNSTATED = "und"  # the language of data whose rows name none
RELATIONS = {"training": "adapter", "merged": "merge", "merged_dequantized": "merge"}


@dataclass(frozen=True)
class MeasuredScore:
    """One score of the run with its 95 % interval (None: too few items)."""

    score: Score
    value: RowScore

    @property
    def interval(self) -> tuple[float, float] | None:
        """Lower and upper end."""
        low, high = self.value.low, self.value.high
        return None if low is None or high is None else (low, high)

    @property
    def name(self) -> str:
        """The metric, with its task where that is not the corpus."""
        plain = self.score.task == "held_out"
        return self.score.metric if plain else f"{self.score.task} {self.score.metric}"


@dataclass(frozen=True)
class ResultFacts:
    """What a card is made of. The plan's paths are cut to their last part."""

    record: RunRecord
    plan: Plan
    form: Form
    scored: Form
    measured: tuple[MeasuredScore, ...]


def facts_of(run: StoredRun, form: Form) -> ResultFacts:
    """The facts of a run in a form; scores of the model as trained where the form has none."""
    evidence = gather([run], (), ReportRequest(suite=run.record.plan.suite))
    known = {scoring.key.precision for scoring in evidence.scorings}
    scored = form if form.name in known else Form("training")
    measured = tuple(
        MeasuredScore(score, value)
        for scoring in evidence.scorings
        if scoring.key.precision == scored.name
        for value in scoring.values.values()
        if (score := scoring.key.find(run.record)) is not None
    )
    return ResultFacts(run.record, without_folders(run.record.plan), form, scored, measured)


def metadata(facts: ResultFacts) -> ModelCardData:
    """The head of a card: names that the hub knows, and the metrics as ``model-index``."""
    from huggingface_hub import ModelCardData

    plan, record = facts.plan, facts.record
    base = plan.model.source if isinstance(plan.model.source, HubSource) else None
    data = HUB_SOURCE.fullmatch(plan.corpus.source)
    license_ = plan.model.license.lower()
    named = license_ in HUB_LICENSES
    method = plan.adapter.type.lower() if plan.adapter else plan.method
    return ModelCardData(
        model_name=plan.variant,
        base_model=None if base is None else base.repository,
        base_model_relation=None if base is None else RELATIONS.get(facts.form.kind, "quantized"),
        datasets=None if data is None else [data["repository"]],
        language=_languages(record),
        library_name=_library(facts.form),
        license=license_ if named else "other",
        license_name=None if named else plan.model.license,
        pipeline_tag="text-generation",
        tags=["finetune-harness", method],
        eval_results=[_eval_result(facts, item) for item in facts.measured] or None,
    )


def _languages(record: RunRecord) -> list[str] | None:
    """Languages of the training data, where its rows name any."""
    found = [name for name, _, _ in record.corpus.languages] if record.corpus else []
    return [name for name in found if name != UNSTATED] or None


def _library(form: Form) -> str:
    if not form.merges:
        return "peft"
    return "transformers" if form.quant is None else "gguf"


def _eval_result(facts: ResultFacts, item: MeasuredScore) -> Any:
    from huggingface_hub import EvalResult

    score, ends = item.score, item.interval
    data = _dataset(facts.plan, score)
    return EvalResult(
        task_type="text-generation",
        dataset_type=data["path"],
        dataset_name=score.task if score.task != "held_out" else data["path"],
        dataset_config=data.get("config"),
        dataset_split=data.get("split"),
        dataset_revision=data.get("revision"),
        metric_type=score.metric,
        metric_name=item.name,
        metric_value=item.value.value,
        metric_args={
            "form": score.precision,
            "items": score.n,
            "interval_95": None if ends is None else list(ends),
        },
    )


def _dataset(plan: Plan, score: Score) -> dict[str, str]:
    """Where a score's items come from: ``path`` and, where known, config, split, revision."""
    stored = score.details.get("dataset")
    if isinstance(stored, dict):
        return {key: value for key, value in stored.items() if isinstance(value, str)}
    if score.task not in ("held_out", "generations", "preference"):
        return {"path": score.task}
    data = HUB_SOURCE.fullmatch(plan.corpus.source)
    if data is None:
        return {"path": plan.corpus.source, "split": "held_out"}
    return {"path": data["repository"], "revision": data["revision"], "split": "held_out"}


def result_files(facts: ResultFacts) -> dict[str, str]:
    """A file for each data set of the hub that a task's main metric was taken on.

    Empty where the installed huggingface_hub does not know the format.
    """
    try:
        from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
        from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]  # no __all__
    except ImportError:
        return {}
    entries: dict[str, list[Any]] = {}
    for item in facts.measured:
        data = item.score.details.get("dataset")
        if not item.score.headline or not isinstance(data, dict):
            continue
        path = str(data["path"])
        entry = EvalResultEntry(
            dataset_id=path,
            task_id=item.score.task,
            value=item.value.value,
            date=facts.record.started_at,
            notes=_notes(item),
        )
        entries.setdefault(path.replace("/", "__") + ".yaml", []).append(entry)
    return {name: yaml_dump(eval_result_entries_to_yaml(found)) for name, found in entries.items()}


def _notes(item: MeasuredScore) -> str:
    """How the score was taken, as far as the record says."""
    score = item.score
    parts = [score.metric, f"scored as {form_name(score.precision)}"]
    shots, documents = score.details.get("num_fewshot"), score.details.get("documents")
    if shots is not None:
        parts.append(f"{shots}-shot")
    parts.append(f"{score.n} items" if documents is None else f"{score.n} of {documents} items")
    if item.interval is not None:
        parts.append("95 % interval {:.4g} to {:.4g}".format(*item.interval))
    return ", ".join(parts)


def form_name(name: str) -> str:
    """A form as a reader of a card knows it."""
    return "adapter on its own base" if name == "training" else name
