"""Precision: an adapter scored on the base it was trained on, on a 16-bit base, and merged."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import RunError
from harness.quantize.scheme import is_quantized
from harness.records.events import Progress
from harness.records.record import Generation, Score
from harness.score.items import Stage
from harness.score.subject import Scores, Subject
from harness.score.take import take_scores
from harness.spec.plan import Plan
from harness.spec.suite import ScorePrecision
from harness.spec.variant import Quantization

Load = Callable[[Quantization], Any]


def take_every_precision(
    subject: Subject, stage: Stage, folder: Path, progress: Progress, load: Load
) -> Scores:
    """Scores in every precision that the plan asks for.

    ``subject.model`` is the model as trained. ``load`` gives a fresh base model in a
    quantization (:func:`harness.weights.load.load_base` with the rest filled in); it is called
    only where a model other than the trained one is needed. Precisions that are the same model,
    such as 16 bits on an unquantized base, are scored once and say so in ``details``.
    """
    scores: list[Score] = []
    generations: tuple[Generation, ...] = ()
    by_model: dict[ScorePrecision, list[Score]] = {}
    for precision in subject.plan.score.precisions:
        actual = same_model(subject.plan, precision, trained=stage == "after")
        if actual not in by_model:
            with open_precision(subject, actual, load, trained=stage == "after") as model:
                plan = subject.plan if actual == "training" else _without_answers(subject.plan)
                chosen = replace(subject, model=model, plan=plan, precision=actual)
                found = take_scores(chosen, stage, folder, progress)
            by_model[actual] = [_with_dtype(score, model) for score in found.scores]
            generations = generations or found.generations
        if actual == precision:
            scores += by_model[actual]
        else:
            scores += [_as(score, precision) for score in by_model[actual]]
    return Scores(tuple(scores), generations)


def same_model(plan: Plan, precision: ScorePrecision, *, trained: bool) -> ScorePrecision:
    """The plainest precision that is the very same model as ``precision``."""
    if precision == "merged" and not (trained and plan.adapter is not None):
        precision = "16bit"  # nothing to merge
    if precision == "16bit" and plan.quantization.type == "none":
        precision = "training"
    return precision


@contextmanager
def open_precision(
    subject: Subject, precision: ScorePrecision, load: Load, *, trained: bool
) -> Iterator[Any]:
    """The model in a precision; what was loaded for it is let go at the end.

    An adapter is merged into unquantized weights only.

    Raises:
        RunError: ``load`` gave a quantized model where an unquantized one was asked for.
    """
    if precision == "training":
        yield subject.model
        return
    base = load(Quantization())
    if is_quantized(base):
        raise RunError(
            "an adapter is never merged into quantized weights, nor scored on them as 16 bits",
            expected="an unquantized base model",
        )
    if not trained or not hasattr(subject.model, "peft_config"):
        yield base.eval()
        return
    from peft import PeftModel

    with tempfile.TemporaryDirectory() as scratch:
        subject.model.save_pretrained(scratch)
        model = PeftModel.from_pretrained(base, scratch)
    if precision == "merged":
        model = model.merge_and_unload(safe_merge=True)
    yield model.eval()


def _without_answers(plan: Plan) -> Plan:
    """Answers are shown of the model as trained only."""
    return plan.model_copy(update={"score": plan.score.model_copy(update={"generations": 0})})


def _with_dtype(score: Score, model: Any) -> Score:
    name = str(model.dtype).removeprefix("torch.")
    return score.model_copy(update={"details": {**score.details, "dtype": name}})


def _as(score: Score, precision: ScorePrecision) -> Score:
    details = {**score.details, "same_model_as": score.precision}
    return score.model_copy(update={"precision": precision, "details": details})
