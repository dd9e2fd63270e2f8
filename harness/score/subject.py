"""Subject: the model that is scored, with all that its scores depend on, and what was found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.corpus.corpus import Corpus
from harness.corpus.render import Renderer
from harness.parallel.ranks import ALONE, Ranks
from harness.records.events import Progress
from harness.records.record import Generation, Score
from harness.score.items import Place
from harness.spec.plan import Plan

if TYPE_CHECKING:
    from harness.score.likelihood import Likelihood


@dataclass(frozen=True)
class Subject:
    """What is scored: a live model with all that its scores depend on.

    ``ranks`` are the processes that have the same model and help to score it, or each a part of
    the model; the latter all make the same calls.
    """

    model: Any
    tokenizer: Any
    renderer: Renderer
    corpus: Corpus
    plan: Plan
    precision: str = "training"
    ranks: Ranks = ALONE

    @property
    def data_folder(self) -> Path | None:
        """Folder that mirrors hub data sets, where the suite names one."""
        folder = self.plan.score.data_folder
        return None if folder is None else Path(folder)


@dataclass(frozen=True)
class Scores:
    """What scoring found."""

    scores: tuple[Score, ...] = ()
    generations: tuple[Generation, ...] = ()


@dataclass(frozen=True)
class Taking:
    """One model being scored: what every score is taken with."""

    subject: Subject
    likelihood: Likelihood
    place: Place
    progress: Progress


TakeScore = Callable[[Taking], Scores]
