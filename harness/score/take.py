"""take_scores: every score a suite asks for, of one model in one precision."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from harness.corpus.corpus import Corpus, build_corpus
from harness.corpus.render import Renderer, TokenSequence
from harness.errors import UserError
from harness.records.events import Progress
from harness.records.record import Generation, Score
from harness.score.bundled import NAMES, write_documents
from harness.score.forgetting import read_pages, score_forgetting
from harness.score.generations import choose_prompts, generate, score_generations
from harness.score.items import Place
from harness.score.likelihood import Likelihood
from harness.score.perplexity import score_held_out
from harness.spec.plan import Plan
from harness.spec.suite import CorpusSpec, ScorePrecision, Task


@dataclass(frozen=True)
class Subject:
    """What is scored: a live model with all that its scores depend on."""

    model: Any
    tokenizer: Any
    renderer: Renderer
    corpus: Corpus
    plan: Plan
    precision: ScorePrecision = "training"


@dataclass(frozen=True)
class Scores:
    """What :func:`take_scores` found."""

    scores: tuple[Score, ...]
    generations: tuple[Generation, ...]


def take_scores(
    subject: Subject, stage: Literal["before", "after"], folder: Path, progress: Progress
) -> Scores:
    """Take every score of the plan and write per-item values below ``folder/items``.

    Training mode, cache setting and random state of the model and process are left as found.

    Raises:
        DivergedError: a log-likelihood is not a finite number.
        UserError: a task, data set or split that is not there.
    """
    score = subject.plan.score
    place = Place(folder, stage, subject.precision)
    with undisturbed(subject.model):
        likelihood = Likelihood(subject.model, score.batch_tokens, progress)
        progress.note(f"scoring {subject.plan.score.split.replace('_', '-')} conversations")
        scores = _held_out(subject, likelihood, place)
        scores += _tasks(subject, likelihood, place, progress)
        if score.forgetting:
            progress.note("scoring unrelated text")
            pages = read_pages(_data_folder(subject))
            scores.append(
                score_forgetting(
                    likelihood, subject.tokenizer, pages, place, score.forgetting_tokens
                )
            )
        generations: list[Generation] = []
        if score.generations:
            progress.note("answering prompts")
            more, generations = _generations(subject, place, progress)
            scores += more
    return Scores(tuple(scores), tuple(generations))


def _data_folder(subject: Subject) -> Path | None:
    folder = subject.plan.score.data_folder
    return None if folder is None else Path(folder)


def _tasks(
    subject: Subject, likelihood: Likelihood, place: Place, progress: Progress
) -> list[Score]:
    """Scores of the suite's lm-eval tasks, and of the preference task where it is asked for."""
    from harness.score.catalogue import load_task, names_of
    from harness.score.engine import heard
    from harness.score.evaluation import evaluate, write_scores

    spec = subject.plan.score
    tasks = list(spec.tasks)
    if spec.preference and "preference" not in names_of(tasks):
        tasks.append(Task(name="preference"))
    names_of(tasks)
    if not tasks:
        return []
    lm = _language_model(subject, likelihood)
    documents = place.folder / "documents"
    details: dict[str, JsonValue] = {"engine": spec.engine, "data_folder": spec.data_folder}
    scores: list[Score] = []
    for task in tasks:
        progress.note(f"scoring {task.name}")
        if task.name in NAMES:
            write_documents(task.name, subject.corpus, subject.renderer, documents)
        with (
            load_task(task, _data_folder(subject), documents) as loaded,
            heard(subject.model, progress, f"scoring {task.name}"),
        ):
            scores += write_scores(evaluate(task, loaded, lm, details), place)
    return scores


def _language_model(subject: Subject, likelihood: Likelihood) -> Any:
    from harness.score.engine import FastLM, PlainLM

    spec = subject.plan.score
    tokenizer = copy.deepcopy(subject.tokenizer)
    tokenizer.chat_template = subject.renderer.chat_template
    if spec.engine == "hf":
        return PlainLM(subject.model, tokenizer)
    return FastLM(subject.model, tokenizer, likelihood)


def _generations(
    subject: Subject, place: Place, progress: Progress
) -> tuple[list[Score], list[Generation]]:
    spec = subject.plan.score
    own = spec.prompts == "held_out" or subject.plan.corpus.source == "sample"
    corpus = subject.corpus if own else build_corpus(CorpusSpec(source="sample"))
    prompts = choose_prompts(corpus.held_out, spec.generations)
    limit = spec.max_new_tokens
    answers = generate(subject.model, subject.renderer, prompts, limit, progress)
    return score_generations(prompts, answers, subject.tokenizer, place, limit)


def _held_out(subject: Subject, likelihood: Likelihood, place: Place) -> list[Score]:
    spec = subject.plan.score
    conversations = getattr(subject.corpus, spec.split)
    if not conversations:
        raise UserError(
            f"no {spec.split.replace('_', '-')} conversations to score",
            where=subject.corpus.result.name,
            hint=f"raise {spec.split}_fraction, or give a larger corpus",
        )
    sequences = [
        replace(
            sequence,
            input_ids=sequence.input_ids[: spec.held_out_tokens],
            loss_mask=sequence.loss_mask[: spec.held_out_tokens],
        )
        for sequence in subject.renderer.encode_all(conversations)
    ]
    text_bytes = [_scored_bytes(subject.tokenizer, sequence) for sequence in sequences]
    return score_held_out(likelihood, sequences, text_bytes, place, spec)


def _scored_bytes(tokenizer: Any, sequence: TokenSequence) -> int:
    """UTF-8 bytes of the text that the scored tokens stand for."""
    tokens = sequence.input_ids[sequence.loss_mask].tolist()
    return len(tokenizer.decode(tokens, skip_special_tokens=True).encode())


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Score in evaluation mode, then put back training modes, cache setting, random states."""
    import random

    import numpy as np
    import torch

    modes = {module: module.training for module in model.modules()}
    config: Any = model.config
    use_cache = getattr(config, "use_cache", None)
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            model.eval()
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        if use_cache is not None:
            config.use_cache = use_cache
        random.setstate(python_state)
        np.random.set_state(numpy_state)
