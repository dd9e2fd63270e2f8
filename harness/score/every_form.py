"""Every form: the scores of each form of the result that the suite asks for, on the same items."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from harness.forms.make import Parts, open_form, write_form
from harness.parallel.ranks import ALONE
from harness.records.events import Progress
from harness.records.record import Generation, Score
from harness.score.fidelity import DIVERGENCE, FormPair, score_fidelity
from harness.score.items import Place, Stage
from harness.score.perplexity import sequences_of
from harness.score.subject import Scores, Subject
from harness.score.take import take_scores
from harness.spec.form import LOUD_NATS, Form, parse_form
from harness.spec.plan import Plan
from harness.spec.variant import Quantization
from harness.weights.adapter import save_adapter

MakeParts = Callable[[Path], Parts]
SPEED_TOKENS = 32
BASE_FORMS = ("training", "16bit", "merged")


@dataclass(frozen=True)
class Opened:
    """A form's live model, and what it took; all None where it is the model in hand."""

    model: Any
    bytes: int | None = None
    load_seconds: float | None = None


def take_every_form(
    subject: Subject, stage: Stage, folder: Path, progress: Progress, parts: MakeParts
) -> Scores:
    """Scores of every form that the plan asks for.

    ``subject.model`` is the model as trained. ``parts`` gives what forms are made from, for a
    folder with the adapter; each form is written to disk and loaded from there, as it would be
    deployed. Forms that are the same model, such as 16 bits on an unquantized base, are scored
    once and say so in ``details``. An untrained model has no forms but its own and 16 bits.
    """
    scores: list[Score] = []
    generations: tuple[Generation, ...] = ()
    by_model: dict[str, list[Score]] = {}
    trained = stage == "after" and subject.plan.trains
    for name in subject.plan.score.forms:
        if not trained and name not in BASE_FORMS:
            continue
        actual = same_model(subject.plan, name, trained=trained)
        if actual not in by_model:
            place = Place(folder, stage, actual)
            found = _take(subject, parse_form(actual), place, progress, parts)
            by_model[actual] = list(found.scores)
            generations = generations or found.generations
        if actual == name:
            scores += by_model[actual]
        else:
            scores += [_as(score, name) for score in by_model[actual]]
    return Scores(tuple(scores), generations)


def same_model(plan: Plan, name: str, *, trained: bool) -> str:
    """The plainest form that is the very same model as the form ``name``."""
    quantized = plan.quantization.type != "none"
    if name == "merged" and not (trained and plan.adapter is not None):
        name = "16bit"  # nothing to merge
    if name == "merged_dequantized" and not quantized:
        name = "merged"  # nothing to expand
    return "training" if name == "16bit" and not quantized else name


def _take(
    subject: Subject, form: Form, place: Place, progress: Progress, parts: MakeParts
) -> Scores:
    with opened_form(subject, form, place, progress, parts) as opened:
        as_trained = form.kind == "training"
        plan = subject.plan if as_trained else _without_answers(subject.plan)
        ranks = subject.ranks if as_trained else ALONE  # other forms are made here alone
        chosen = replace(subject, model=opened.model, plan=plan, precision=form.name, ranks=ranks)
        found = take_scores(chosen, place.stage, place.folder, progress)
        scores = [_with_dtype(score, opened.model) for score in found.scores]
        if not as_trained and place.stage == "after" and subject.plan.trains:
            scores += _fidelity(subject, form, opened, place, progress)
    return Scores(tuple(scores), found.generations)


@contextmanager
def opened_form(
    subject: Subject, form: Form, place: Place, progress: Progress, parts: MakeParts
) -> Iterator[Opened]:
    """The model of a form; what was loaded and written for it is let go at the end."""
    if form.kind == "training":
        yield Opened(subject.model)
        return
    place.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.folder, prefix=".form.") as scratch:
        adapter, target = Path(scratch) / "adapter", Path(scratch) / "form"
        target.mkdir()
        made = parts(adapter)
        if not (subject.plan.trains and place.stage == "after"):
            yield Opened(made.base(Quantization()).eval())
            return
        progress.note(f"making the form {form.name}")
        if hasattr(subject.model, "peft_config"):
            save_adapter(subject.model, adapter)
        else:  # every weight was trained, so what was fetched is no part of it
            subject.model.save_pretrained(adapter)
            made = replace(made.of(adapter), whole=True)
        write_form(made, form, target)
        size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
        started = time.perf_counter()
        model = open_form(made, form, target).eval()
        yield Opened(model, size, time.perf_counter() - started)


def _fidelity(
    subject: Subject, form: Form, opened: Opened, place: Place, progress: Progress
) -> list[Score]:
    """How far the form is from the model as trained, and what it takes to run it."""
    progress.note(f"comparing {form.name} with the model as trained")
    details: dict[str, JsonValue] = {
        "bytes": opened.bytes,
        "load_seconds": opened.load_seconds,
        "tokens_per_second": None if form.quant else _speed(opened.model, subject),
    }
    spec = subject.plan.score
    pair = FormPair(subject.model, opened.model, spec.window)
    scores = score_fidelity(pair, sequences_of(subject, spec.split), place, details)
    for score in scores:
        if score.metric == DIVERGENCE.name and score.value > LOUD_NATS:
            progress.note(
                f"{form.name} is not what was trained: it differs by {score.value:.3g} nats a "
                f"token, more than rounding ({LOUD_NATS:g})"
            )
    return scores


def _speed(model: Any, subject: Subject) -> float:
    """Greedily generated tokens per second, of one answer; the first one warms up."""
    import torch

    from harness.score.generations import choose_prompts

    (prompt,) = choose_prompts(subject.corpus.held_out, 1)
    ids = torch.tensor([subject.renderer.prompt_ids(prompt.messages)], device=model.device)
    seconds = 0.0
    for count in (2, SPEED_TOKENS):
        started = time.perf_counter()
        with torch.inference_mode():
            model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                min_new_tokens=count,
                max_new_tokens=count,
                do_sample=False,
                pad_token_id=subject.renderer.pad_id,
            )
        seconds = time.perf_counter() - started
    return SPEED_TOKENS / seconds


def _without_answers(plan: Plan) -> Plan:
    """Answers are shown of the model as trained only."""
    return plan.model_copy(update={"score": plan.score.model_copy(update={"generations": 0})})


def _with_dtype(score: Score, model: Any) -> Score:
    name = str(model.dtype).removeprefix("torch.")
    return score.model_copy(update={"details": {**score.details, "dtype": name}})


def _as(score: Score, form: str) -> Score:
    details = {**score.details, "same_model_as": score.precision}
    return score.model_copy(update={"precision": form, "details": details})
