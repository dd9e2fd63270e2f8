"""Export: everything a report knows, as JSON, CSV or parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any, Literal

from harness.records.record import RunRecord
from harness.report.build import Report
from harness.report.evidence import Evidence
from harness.report.judging import Difference
from harness.report.scoring import Scoring
from harness.report.settings import flatten

Format = Literal["json", "csv", "parquet"]


def export(report: Report, kind: Format) -> bytes:
    """The report's data.

    JSON holds all: rows with their comparisons, every score of every run, every plan. CSV and
    parquet hold one long table, a line per run and quantity: ``label, variant, suite, seed,
    fingerprint, status, group, name, stage, precision, value, standard_error, n, unit, text``
    with the groups ``score``, ``phase``, ``size`` and ``plan`` (whose values are in ``text``).
    """
    if kind == "json":
        return (json.dumps(_document(report), indent=1, ensure_ascii=False) + "\n").encode()
    lines = list(_lines(report.evidence))
    return _csv(lines) if kind == "csv" else _parquet(lines)


COLUMNS: tuple[tuple[str, str], ...] = (
    ("label", "string"),
    ("variant", "string"),
    ("suite", "string"),
    ("seed", "int64"),
    ("fingerprint", "string"),
    ("status", "string"),
    ("group", "string"),
    ("name", "string"),
    ("stage", "string"),
    ("precision", "string"),
    ("value", "double"),
    ("standard_error", "double"),
    ("n", "int64"),
    ("unit", "string"),
    ("text", "string"),
)


def _csv(lines: list[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [name for name, _ in COLUMNS], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain_cell(value) for key, value in line.items()} for line in lines)
    return text.getvalue().encode()


def _plain_cell(value: Any) -> Any:
    """A spreadsheet must not take text for a formula."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value


def _parquet(lines: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in COLUMNS])
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(lines, schema=schema), buffer, compression="zstd")
    return buffer.getvalue()


def _lines(evidence: Evidence) -> Iterator[dict[str, Any]]:
    for row in evidence.rows:
        for record in row.records:
            start = {
                "label": row.label,
                "variant": row.variant,
                "suite": record.plan.suite,
                "seed": record.plan.seed,
                "fingerprint": record.fingerprint,
                "status": record.status,
            }
            for line in _quantities(record):
                yield start | line


def _quantities(record: RunRecord) -> Iterator[dict[str, Any]]:
    for score in record.scores:
        yield {
            "group": "score",
            "name": f"{score.task}.{score.metric}",
            "stage": score.stage,
            "precision": score.precision,
            "value": score.value,
            "standard_error": score.standard_error,
            "n": score.n,
            "unit": score.unit,
        }
    for cost in record.phases:
        for name, value in cost.model_dump().items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                unit = name.rpartition("_")[2]
                yield {
                    "group": "phase",
                    "name": f"{cost.name}.{name}",
                    "value": float(value),
                    "unit": unit,
                }
    yield from _sizes(record)
    for key, value in flatten(record.plan.model_dump(mode="json")).items():
        yield {"group": "plan", "name": key, "text": json.dumps(value, ensure_ascii=False)}


def _sizes(record: RunRecord) -> Iterator[dict[str, Any]]:
    sizes: dict[str, tuple[float | None, str]] = {
        "seconds": (record.seconds, "seconds"),
        "adapter_bytes": (record.adapter_bytes, "bytes"),
    }
    if record.census is not None:
        sizes["trainable_parameters"] = (record.census.trainable, "parameters")
        sizes["parameters"] = (record.census.total, "parameters")
        sizes["weight_bytes"] = (record.census.weight_bytes, "bytes")
    if record.training is not None:
        sizes["steps"] = (record.training.steps, "steps")
        sizes["tokens_per_second"] = (record.training.throughput.median, "tokens per second")
        for name, count in record.training.tokens.model_dump().items():
            sizes[f"tokens.{name}"] = (count, "tokens")
    for name, (value, unit) in sizes.items():
        if value is not None:
            yield {"group": "size", "name": name, "value": float(value), "unit": unit}


def _document(report: Report) -> dict[str, Any]:
    evidence = report.evidence
    return {
        "title": report.title,
        "request": evidence.request.model_dump(mode="json"),
        "reference": evidence.reference,
        "memory_measure": evidence.memory_kind,
        "scores": [
            {"role": "secondary" if number else "primary"} | _scoring(scoring)
            for number, scoring in enumerate(evidence.scorings)
        ],
        "questions": [
            {
                "question": answer.question.text,
                "row": answer.question.row.label,
                "against": answer.question.against.label,
            }
            | _difference(answer.difference)
            for answer in evidence.answers
        ],
        "contest": None if evidence.contest is None else vars(evidence.contest),
        "rows": [
            {
                "label": row.label,
                "variant": row.variant,
                "peak_memory_bytes": row.peak_bytes(evidence.memory_kind),
                "peak_memory_bytes_of_runs": row.peaks(evidence.memory_kind),
                "runs": [record.model_dump(mode="json") for record in row.records],
            }
            for row in evidence.ranked
        ],
        "broken": [
            {"folder": "/".join(run.folder.path.parts[-3:]), "error": run.error.what}
            for run in evidence.broken
        ],
    }


def _scoring(scoring: Scoring) -> dict[str, Any]:
    scale, key = scoring.scale, scoring.key
    return {
        "task": key.task,
        "metric": key.metric,
        "precision": key.precision,
        "unit": scale.unit,
        "direction": scale.direction,
        "compared": "relative" if scale.relative else "absolute",
        "margin": scale.margin,
        "items": scoring.items,
        "clusters": scoring.clusters,
        "values": {label: vars(value) for label, value in scoring.values.items()},
        "differences": {label: _difference(found) for label, found in scoring.differences.items()},
        "not_compared": scoring.excluded,
    }


def _difference(found: Difference) -> dict[str, Any]:
    return {
        "estimate": found.estimate,
        "low": found.low,
        "high": found.high,
        "p": found.p_value,
        "p_corrected": found.adjusted_p,
        "verdict": found.verdict,
        "obstacle": found.obstacle or None,
        "seeds": found.worse_by.seeds,
        "smallest_difference_shown": found.smallest,
        "to_settle_the_margin": None if found.needed is None else vars(found.needed),
    }
