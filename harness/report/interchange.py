"""Interchange: records in the layouts of lm-eval and of Every Eval Ever, without data text."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from harness.records.record import RunRecord, Score
from harness.report.build import Report
from harness.spec.model import HubSource
from harness.spec.plan import Plan

Layout = Literal["lm-eval", "every-eval-ever"]
SCHEMA = "0.3.0"  # of Every Eval Ever, which the documents are written by
HARNESS = "finetune-harness"
BOUNDS: dict[str, tuple[float, float | str]] = {"fraction": (0, 1)}
NOT_NEGATIVE = ("bits per byte", "nats", "nats per token", "per token", "per unit")


def interchange(report: Report, layout: Layout) -> dict[str, bytes]:
    """Documents of every finished run of a report, by their paths in the layout's folder.

    A run has a document for each form that it scored: what a score was taken of is part of it.
    """
    write = _lm_eval if layout == "lm-eval" else _every_eval_ever
    found: dict[str, bytes] = {}
    for row in report.evidence.ranked:
        for record in row.finished:
            for form, scores in _by_form(record):
                path, document = write(record, form, scores)
                text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
                found[path] = (text + "\n").encode()
    return found


def _by_form(record: RunRecord) -> Iterator[tuple[str, list[Score]]]:
    after = [score for score in record.scores if score.stage == "after"]
    for form in dict.fromkeys(score.precision for score in after):
        yield form, [score for score in after if score.precision == form]


def _name(plan: Plan, form: str) -> str:
    """A portable name of one model: base, variant, form, seed."""
    parts = [plan.model.name, plan.variant, *([] if form == "training" else [form])]
    return _portable(".".join([*parts, f"seed{plan.seed}"]))


def _portable(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")


def _epoch(record: RunRecord) -> float:
    return datetime.fromisoformat(record.started_at).timestamp()


def _dataset(score: Score) -> dict[str, Any]:
    """The hub's data set of a score, where the record names it."""
    found = score.details.get("dataset")
    return found if isinstance(found, dict) else {}


def _lm_eval(record: RunRecord, form: str, scores: Sequence[Score]) -> tuple[str, dict[str, Any]]:
    """lm-eval's results file, ``MODEL/results_DATE.json``, as its ``--output_path`` has it."""
    plan = record.plan
    name = _name(plan, form)
    document: dict[str, Any] = {
        key: {} for key in ("results", "configs", "versions", "n-shot", "higher_is_better")
    }
    document["n-samples"] = {}
    for score in scores:
        _add_lm_eval(document, score)
    document |= {
        "group_subtasks": {task: [] for task in document["results"]},
        "config": {
            "model": HARNESS,
            "model_args": f"pretrained={_base(plan)},variant={plan.variant},form={form}",
            "model_dtype": plan.precision.compute,
            "random_seed": plan.seed,
            "device": plan.device.kind,
        },
        "git_hash": record.environment.commit if record.environment else None,
        "date": _epoch(record),
        "transformers_version": _package(record, "transformers"),
        "lm_eval_version": _package(record, "lm-eval"),
        "model_source": HARNESS,
        "model_name": name,
        "model_name_sanitized": name,
        "total_evaluation_time_seconds": str(
            sum(cost.seconds for cost in record.phases if cost.name == "score")
        ),
    }
    date = datetime.fromisoformat(record.started_at).replace(tzinfo=None).isoformat()
    return f"{name}/results_{date.replace(':', '-')}.json", document


def _add_lm_eval(document: dict[str, Any], score: Score) -> None:
    task, data = score.task, _dataset(score)
    chosen = score.details.get("filter") or "none"
    metric = score.metric.partition("@")[0]
    results = document["results"].setdefault(task, {"alias": task})
    error = score.standard_error
    results[f"{metric},{chosen}"] = score.value
    results[f"{metric}_stderr,{chosen}"] = "N/A" if error is None else error
    config = {"task": task, "dataset_path": data.get("path"), "dataset_name": data.get("config")}
    config |= {"test_split": data.get("split"), "num_fewshot": score.details.get("num_fewshot")}
    document["configs"][task] = {key: value for key, value in config.items() if value is not None}
    document["versions"][task] = score.details.get("version")
    document["n-shot"][task] = score.details.get("num_fewshot") or 0
    better = document["higher_is_better"].setdefault(task, {})
    better[metric] = score.direction == "higher"
    original = score.details.get("documents") or score.n
    document["n-samples"][task] = {"original": original, "effective": score.n}


def _base(plan: Plan) -> str:
    source = plan.model.source
    return source.repository if isinstance(source, HubSource) else plan.model.name


def _package(record: RunRecord, name: str) -> str | None:
    return record.environment.packages.get(name) if record.environment else None


def _every_eval_ever(
    record: RunRecord, form: str, scores: Sequence[Score]
) -> tuple[str, dict[str, Any]]:
    """A document of Every Eval Ever at ``data/COLLECTION/DEVELOPER/MODEL/UUID.json``."""
    plan = record.plan
    name, collection = _name(plan, form), _portable(plan.suite)
    epoch = str(int(_epoch(record)))
    model_id = f"{HARNESS}/{name}"
    document = {
        "schema_version": SCHEMA,
        "evaluation_id": f"{collection}/{model_id}/{epoch}",
        "evaluation_timestamp": epoch,
        "retrieved_timestamp": epoch,
        "source_metadata": {
            "source_name": HARNESS,
            "source_type": "evaluation_run",
            "source_organization_name": "not stated",
            "evaluator_relationship": "first_party",
        },
        "eval_library": {
            "name": HARNESS,
            "version": _package(record, HARNESS) or _own_version(),
            "additional_details": {"lm_eval": _package(record, "lm-eval") or "unknown"},
        },
        "model_info": {
            "name": name,
            "id": model_id,
            "developer": HARNESS,
            "additional_details": _model_details(plan, form),
        },
        "evaluation_results": [_result(score) for score in scores],
    }
    digest = hashlib.sha256(f"{record.fingerprint} {form} {record.started_at}".encode()).digest()
    return f"data/{collection}/{model_id}/{uuid.UUID(bytes=digest[:16], version=4)}.json", document


def _own_version() -> str:
    try:
        return version(HARNESS)
    except PackageNotFoundError:
        return "unknown"


def _model_details(plan: Plan, form: str) -> dict[str, str]:
    return {
        "deployment_type": "self_deployed",
        "model_availability": "unknown",
        "base_model": _base(plan),
        "variant": plan.variant,
        "method": plan.adapter.type if plan.adapter else plan.method,
        "form": form,
        "quantization": str(plan.quantization.type),
        "seed": str(plan.seed),
    }


def _result(score: Score) -> dict[str, Any]:
    uncertainty: dict[str, Any] = {"num_samples": score.n}
    if score.standard_error is not None:
        method = score.details.get("standard_error")
        uncertainty["standard_error"] = {
            "value": score.standard_error,
            "method": method if isinstance(method, str) else "analytic",
        }
    details = {
        key: str(score.details[key])
        for key in ("num_fewshot", "limit", "version", "filter", "clusters")
        if score.details.get(key) is not None
    }
    return {
        "evaluation_result_id": _portable(f"{score.task}.{score.metric}"),
        "evaluation_name": score.task,
        "source_data": _source_data(score),
        "metric_config": _metric(score),
        "score_details": {
            "score": score.value,
            "details": details,
            "uncertainty": uncertainty,
        },
    }


def _source_data(score: Score) -> dict[str, Any]:
    data = _dataset(score)
    if not data:
        return {"dataset_name": score.task, "source_type": "other"}
    found = {
        "dataset_name": score.task,
        "source_type": "hf_dataset",
        "hf_repo": data["path"],
        "hf_split": data.get("split"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _metric(score: Score) -> dict[str, Any]:
    found: dict[str, Any] = {
        "metric_id": score.metric,
        "metric_name": score.metric,
        "metric_unit": score.unit,
        "lower_is_better": score.direction == "lower",
    }
    bounds = BOUNDS.get(score.unit)
    if bounds is None and (score.transform == "exp" or score.unit in NOT_NEGATIVE):
        bounds = (0, "Infinity")
    if bounds is not None:
        low, high = bounds
        found |= {"score_type": "continuous", "min_score": low, "max_score": high}
    return found
