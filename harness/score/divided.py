"""Divided: log-likelihoods that several devices compute together, each some of the passes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

import torch

from harness.parallel.divide import spans
from harness.parallel.ranks import Ranks
from harness.records.events import SILENCE, Progress
from harness.score.likelihood import Likelihood, Query, TargetScores
from harness.score.prefixes import Extend, Idle, IntArray, SideBySide, Tree, common_prefix
from harness.score.subject import Subject
from harness.score.undisturbed import undisturbed
from harness.weights.sharded import is_sharded
from harness.weights.trained_shards import around_whole

Pass = Extend | Tree | SideBySide
OPEN = "open"  # what the first device says when it looks a model over


def make_likelihood(subject: Subject, progress: Progress) -> Likelihood:
    """What answers queries about the model of ``subject``.

    Other devices help (help_score), or ask the same where each has a part of the model.
    """
    tokens = subject.plan.score.batch_tokens
    if subject.plan.sharded:
        return likelihood_of(subject.model, tokens, progress, subject.ranks)
    if subject.ranks.count == 1:
        return Likelihood(subject.model, tokens, progress)
    subject.ranks.hand_out(OPEN)
    return DividedLikelihood(subject.model, tokens, progress, subject.ranks)


def likelihood_of(model: Any, batch_tokens: int, progress: Progress, ranks: Ranks) -> Likelihood:
    """What answers queries about a model that every device asks about, in the same calls."""
    if ranks.count == 1:
        return Likelihood(model, batch_tokens, progress)
    return DividedLikelihood(model, batch_tokens, progress, ranks, asked_by_all=True)


def help_score(subject: Subject) -> None:
    """Compute what the first device asks for, until it says that it needs no more."""
    from harness.score.evaluation import language_model

    ranks, tokens = subject.ranks, subject.plan.score.batch_tokens
    likelihood: DividedLikelihood | None = None
    lm: Any = None
    with undisturbed(subject.model):
        while (asked := ranks.hand_out(None)) is not None:
            if asked == OPEN:
                likelihood = DividedLikelihood(subject.model, tokens, SILENCE, ranks)
                lm = None
            elif likelihood is not None and isinstance(asked, list):
                likelihood.answer(asked)
            elif likelihood is not None:
                lm = lm or language_model(subject, likelihood)
                lm.share(asked)


class DividedLikelihood(Likelihood):
    """Every device makes the same schedule of passes and runs a part of it.

    The passes are those of one device, of the same tokens in the same shapes, so the answers are
    the same bit for bit. The first device asks, and the others wait in :func:`help_score`; or,
    ``asked_by_all``, every device makes the same calls.

    Layers of a sharded model are gathered in every pass of any device, so there all run as many.
    """

    _compares_in_step = True

    def __init__(
        self,
        model: Any,
        batch_tokens: int,
        progress: Progress,
        ranks: Ranks,
        *,
        asked_by_all: bool = False,
    ) -> None:
        """Look the model over, each device for itself; the first one's view of it counts."""
        super().__init__(model, batch_tokens, progress)
        self._ranks, self._model = ranks, model
        self._in_step = is_sharded(model)
        self._hands_out = ranks.index == 0 and not asked_by_all
        way = ranks.hand_out((self._body.way, self._reason))
        while self._body.way != way[0] and self._others:
            self._body = self._others.pop(0)
        self._reason = way[1]

    @torch.inference_mode()
    def answer(self, queries: Sequence[Query]) -> list[TargetScores]:
        """See :meth:`Likelihood.answer`; what the first device is asked, all answer."""
        if self._hands_out:
            self._ranks.hand_out(list(queries))
        with around_whole(self._model):
            return super().answer(queries)

    def _chosen(
        self, steps: Sequence[Pass], inputs: Sequence[IntArray]
    ) -> tuple[Sequence[Pass | Idle], int]:
        """This device's share of the passes, by the tokens that they compute."""
        asked = [index for index, step in enumerate(steps) if not isinstance(step, Extend)]
        parts = spans(costs(steps, inputs), self._ranks.count)
        shares = [with_prefixes(steps, [asked[place] for place in part]) for part in parts]
        chosen = shares[self._ranks.index]
        members = [m for step in chosen if not isinstance(step, Extend) for m in step.members]
        missing = max(map(len, shares)) - len(chosen) if self._in_step else 0
        return [*chosen, *([Idle()] * missing)], sum(len(inputs[member]) for member in members)

    def _complete(self, answers: Sequence[TargetScores], filled: Sequence[int]) -> None:
        """Exchange what each device has found."""
        mine = [(query, answers[query].log_probs, answers[query].greedy) for query in filled]
        for part in self._ranks.gather(mine):
            for query, log_probs, greedy in part:
                answers[query].log_probs[:] = log_probs
                answers[query].greedy[:] = greedy

    def _agreed(self, found: bool) -> bool:  # noqa: FBT001 - what was found
        return all(self._ranks.gather(found))


def costs(steps: Sequence[Pass], inputs: Sequence[IntArray]) -> list[int]:
    """Tokens that each pass with answers computes, with the prefix that is run for it."""
    found, prefix = [], 0
    for step in steps:
        if isinstance(step, Extend):
            prefix += len(step.tokens)
            continue
        found.append(prefix + _tokens(step, inputs))
        prefix = 0
    return found


def _tokens(step: Tree | SideBySide, inputs: Sequence[IntArray]) -> int:
    rows = [inputs[member] for member in step.members]
    if isinstance(step, SideBySide):
        return len(rows) * max(len(row) for row in rows)
    shared = [step.base, *(common_prefix(a, b) for a, b in pairwise(rows))]
    return sum(len(row) - base for row, base in zip(rows, shared, strict=True))


def with_prefixes(steps: Sequence[Pass], chosen: Collection[int]) -> list[Pass]:
    """The chosen passes, and before them those that fill the cache for them; in order."""
    kept: list[Pass] = []
    needed = 0  # cached tokens that later passes read
    for index in reversed(range(len(steps))):
        step = steps[index]
        if isinstance(step, Extend):
            if needed > step.keep:
                kept.append(step)
                needed = step.keep
        elif index in chosen:
            kept.append(step)
            needed = max(needed, step.base if isinstance(step, Tree) else 0)
    return kept[::-1]
