"""Samples: what lm-eval made of each document becomes scores with items."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import JsonValue

from harness.errors import DivergedError
from harness.records.record import Score
from harness.score.catalogue import Loaded
from harness.score.items import Items, Metric, Place
from harness.spec.suite import Task

NO_FILTER = "none"
MAIN = ("acc_norm", "acc", "exact_match", "bits_per_byte", "mc2")
Sample = dict[str, Any]


@dataclass(frozen=True)
class Evaluated:
    """What lm-eval made of one task of the suite."""

    task: Task
    loaded: Loaded
    results: dict[str, Any]
    details: dict[str, JsonValue]

    def asked(self, name: str) -> dict[str, JsonValue]:
        """What decides the items of a leaf or group: how it is asked, and its version."""
        return {
            "task": name,
            "version": str(self.results["versions"].get(name)),
            "num_fewshot": self.results["n-shot"].get(name, self.task.num_fewshot),
            "chat_template": self.task.apply_chat_template,
        }


def write_scores(outcome: Evaluated, place: Place) -> list[Score]:
    """Write the items of every metric of every leaf and group, and make their scores."""
    rows: dict[tuple[str, str, str], Items] = {}
    scores = []
    for name, leaf in outcome.loaded.tasks.items():
        samples = outcome.results["samples"][name]
        for metric, chosen, group in _metrics(samples):
            column = _TaskMetric(name, metric, chosen, leaf)
            items = column.items(group)
            if items is None:
                scores.append(column.bare(outcome, place, len(group)))
                continue
            rows[name, metric, chosen] = items
            scores.append(
                place.write(
                    column.meaning(headline=name == outcome.loaded.name),
                    items,
                    asked=outcome.asked(name),
                    standard_error=_closed_form(items, column.kind),
                    details=_details(outcome, name, chosen),
                )
            )
    for group in outcome.loaded.groups.values():
        scores.extend(_group_scores(group, rows, outcome, place))
    return _one_headline(scores)


@dataclass(frozen=True)
class _TaskMetric:
    """One metric of one task under one filter."""

    task: str
    metric: str
    filter: str
    leaf: Any

    @property
    def kind(self) -> Literal["mean", "nats", "per_word", "bits", "other"]:
        """How lm-eval aggregates it."""
        from lm_eval.api import metrics

        known = {
            metrics.mean: "mean",
            metrics.nanmean: "mean",
            metrics.perplexity: "nats",
            metrics.weighted_perplexity: "per_word",
            metrics.bits_per_byte: "bits",
        }
        found: Any = known.get(self.leaf.aggregation().get(self.metric, metrics.mean), "other")
        return found  # type: ignore[no-any-return]

    @property
    def label(self) -> str:
        """The metric's name; a filter other than lm-eval's default is part of it."""
        return self.metric if self.filter == NO_FILTER else f"{self.metric}@{self.filter}"

    def meaning(self, *, headline: bool) -> Metric:
        """Unit and direction."""
        units = {"nats": "per token", "per_word": "per unit", "bits": "bits per byte"}
        unit = units.get(self.kind, "fraction" if self.metric in _FRACTIONS else "points")
        higher = self.leaf.higher_is_better().get(self.metric, True)
        return Metric(
            self.task,
            self.label,
            unit,
            "higher" if higher else "lower",
            "exp" if self.kind in ("nats", "per_word") else "identity",
            headline=headline,
        )

    def items(self, samples: Sequence[Sample]) -> Items | None:
        """Rows, or None for a metric that is not a ratio of sums (F1, BLEU)."""
        values = [sample[self.metric] for sample in samples]
        if self.kind == "other" or not all(_is_number(value, self.kind) for value in values):
            return None
        if self.kind in ("per_word", "bits"):
            above = np.array([-float(total) for total, _ in values])
            below = np.array([float(size) for _, size in values])
            above = above / math.log(2) if self.kind == "bits" else above
        else:
            above = np.array([float(value) for value in values])
            above = -above if self.kind == "nats" else above
            below = np.ones(len(values))
        return Items(
            item=[str(s["doc"].get("item", s["doc_id"])) for s in samples],
            cluster=[str(s["doc"].get("cluster", s["doc_id"])) for s in samples],
            numerator=above,
            denominator=below,
            extras=_extras(samples),
        )

    def bare(self, outcome: Evaluated, place: Place, count: int) -> Score:
        """A score without items, as lm-eval computed it."""
        value = float(outcome.results["results"][self.task][f"{self.metric},{self.filter}"])
        if not math.isfinite(value):
            raise DivergedError(f"{self.metric} of {self.task} is {value}")
        meaning = self.meaning(headline=False)
        return Score(
            task=self.task,
            metric=self.label,
            stage=place.stage,
            precision=place.precision,
            value=value,
            standard_error=None,
            n=count,
            unit=meaning.unit,
            direction=meaning.direction,
            details={
                **_details(outcome, self.task, self.filter),
                "asked": outcome.asked(self.task),
            },
        )


_FRACTIONS = frozenset(
    ("acc", "acc_norm", "acc_bytes", "exact_match", "mc1", "mc2", "em", "longer_wins", "bleu_acc",
     "rouge1_acc", "rouge2_acc", "rougeL_acc", "acc_mutual_info", "f1", "brier_score")
)  # fmt: skip


def _group_scores(
    group: Any, rows: dict[tuple[str, str, str], Items], outcome: Evaluated, place: Place
) -> Iterator[Score]:
    """Aggregates of a group as lm-eval defines them; items keep their task's name in front."""
    leaves = [leaf.task_name for leaf in group.get_all_tasks()]
    for wanted in group.aggregate_metric_list or ():
        found = {
            key: items
            for key, items in rows.items()
            if key[0] in leaves
            and key[1] == wanted.metric
            and (wanted.filter_list is None or key[2] in wanted.filter_list)
        }
        for chosen in sorted({key[2] for key in found}):
            parts = {key[0]: items for key, items in found.items() if key[2] == chosen}
            missing = sorted(set(leaves) - set(parts))
            column = _TaskMetric(group.name, wanted.metric, chosen, _leaf_of(outcome, parts))
            yield place.write(
                column.meaning(headline=group.name == outcome.loaded.name),
                joined(parts, by_size=wanted.weight_by_size),
                asked=outcome.asked(group.name),
                details={
                    **_details(outcome, group.name, chosen),
                    "tasks": len(parts),
                    **({"left_out": missing} if missing else {}),
                    "weight_by_size": wanted.weight_by_size,
                },
            )


def _leaf_of(outcome: Evaluated, parts: dict[str, Items]) -> Any:
    return outcome.loaded.tasks[next(iter(parts))]


def joined(parts: dict[str, Items], *, by_size: bool) -> Items:
    """Rows of several tasks; unweighted groups weigh rows so that each task counts alike.

    Numerator and denominator bear the same weight: the ratio of their sums is the mean of the
    tasks' values, and a row's residual is what it adds to that mean's error.
    """
    above, below = [], []
    for items in parts.values():
        weight = 1.0 if by_size else 1.0 / float(items.denominator.sum())
        above.append(items.numerator * weight)
        below.append(items.denominator * weight)
    return Items(
        item=[f"{name}/{item}" for name, items in parts.items() for item in items.item],
        cluster=[f"{name}/{item}" for name, items in parts.items() for item in items.cluster],
        numerator=np.concatenate(above),
        denominator=np.concatenate(below),
    )


def _metrics(samples: Sequence[Sample]) -> Iterator[tuple[str, str, list[Sample]]]:
    """Every (metric, filter) with its samples; a document may lack a metric."""
    found: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        for metric in sample["metrics"]:
            found[metric, sample["filter"]].append(sample)
    for (metric, chosen), group in found.items():
        yield metric, chosen, group


def _is_number(value: Any, kind: str) -> bool:
    if kind in ("per_word", "bits"):
        return isinstance(value, list | tuple) and len(value) == 2
    return isinstance(value, int | float | np.number)


def _extras(samples: Sequence[Sample]) -> dict[str, Sequence[Any]]:
    """Document hash, request, answers: log-likelihoods with greedy flags, or text."""
    found: dict[str, Sequence[Any]] = {
        "doc_hash": [s["doc_hash"] for s in samples],
        "prompt": [str(s["arguments"][0][0]) for s in samples],
        "target": [str(s["target"]) for s in samples],
    }
    first = samples[0]["resps"][0][0]
    if isinstance(first, tuple):
        found["continuations"] = [[str(a[1]) for a in s["arguments"]] for s in samples]
        found["log_likelihoods"] = [[float(r[0][0]) for r in s["resps"]] for s in samples]
        found["greedy"] = [[bool(r[0][1]) for r in s["resps"]] for s in samples]
    elif isinstance(first, float):
        found["log_likelihoods"] = [[float(r[0]) for r in s["resps"]] for s in samples]
    else:
        found["answer"] = [str(s["resps"][0][0]) for s in samples]
        found["filtered"] = [str(s["filtered_resps"][0]) for s in samples]
    return found


def _details(outcome: Evaluated, name: str, chosen: str) -> dict[str, JsonValue]:
    results = outcome.results
    found: dict[str, JsonValue] = {
        **outcome.details,
        "version": str(results["versions"].get(name)),
        "num_fewshot": results["n-shot"].get(name),
        "filter": chosen,
    }
    counts = results["n-samples"].get(name)
    if counts:
        found["documents"] = int(counts["original"])
    if name in outcome.loaded.tasks:
        data = _dataset(outcome.loaded.tasks[name].config, outcome.details.get("data_folder"))
        found |= {"dataset": data} if data else {}
    return found


def _dataset(config: Any, data_folder: JsonValue) -> dict[str, JsonValue]:
    """The hub's data set that a task asks, also where a copy of it was read; empty for others."""
    path = Path(config.dataset_path or "")
    if isinstance(data_folder, str) and path.is_relative_to(Path(data_folder).resolve()):
        path = path.relative_to(Path(data_folder).resolve())
    if path.is_absolute() or len(path.parts) != 2:
        return {}
    split = config.test_split or config.validation_split
    named = {"path": path.as_posix(), "config": config.dataset_name, "split": split}
    return {key: value for key, value in named.items() if value is not None}


def _closed_form(items: Items, kind: str) -> float | None:
    """lm-eval's standard error of a mean of independent documents; None asks for a bootstrap."""
    independent = len(set(items.cluster)) == len(items.item)
    if kind != "mean" or not independent or len(items.item) < 2:
        return None
    return float(np.std(items.numerator, ddof=1) / math.sqrt(len(items.item)))


def _one_headline(scores: list[Score]) -> list[Score]:
    """Keep the headline on the main metric only."""
    leading = [score.metric for score in scores if score.headline]
    if not leading:
        return scores
    main = next((name for name in MAIN if name in leading), leading[0])
    return [_with_headline(s, on=s.headline and s.metric == main) for s in scores]


def _with_headline(score: Score, *, on: bool) -> Score:
    """The same score, in or out of the ranking table."""
    return score.model_copy(update={"headline": on})
