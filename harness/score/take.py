"""take_scores: every score a suite asks for, of one model in one precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.corpus.build import Corpus
from harness.corpus.render import Renderer
from harness.errors import UserError
from harness.events import Progress
from harness.plan import Plan
from harness.record import Generation, Score
from harness.score.items import Place
from harness.score.likelihood import Likelihood
from harness.score.perplexity import score_held_out
from harness.suite import ScorePrecision


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
    with undisturbed(subject.model):
        place = Place(folder, stage, subject.precision)
        likelihood = Likelihood(subject.model, subject.plan.score.batch_tokens, progress)
        progress.note("scoring held-out conversations")
        scores = _held_out(subject, likelihood, place)
    return Scores(tuple(scores), ())


def _held_out(subject: Subject, likelihood: Likelihood, place: Place) -> list[Score]:
    conversations = subject.corpus.held_out
    if not conversations:
        raise UserError(
            "no held-out conversations to score",
            where=subject.corpus.result.name,
            hint="raise held_out_fraction, or give a larger corpus",
        )
    sequences = list(subject.renderer.encode_all(conversations))
    text_bytes = [
        sum(len(m.text.encode()) for m in c.messages if m.role == "assistant")
        for c in conversations
    ]
    return score_held_out(likelihood, sequences, text_bytes, place, subject.plan.score)


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
