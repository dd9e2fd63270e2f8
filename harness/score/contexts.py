"""Contexts: perplexity of long texts with one, two and four times the context of the base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import JsonValue

from harness.errors import UserError
from harness.records.record import Score
from harness.score.forgetting import CONFIG, DATA_SET, read_pages
from harness.score.items import Items, Metric, Place
from harness.score.perplexity import negative_log_likelihoods
from harness.score.subject import Scores, Taking
from harness.spec.model import context_of

if TYPE_CHECKING:
    from harness.score.likelihood import Likelihood

TIMES = (1, 2, 4)
DATA = f"{DATA_SET} {CONFIG} test"


def context_task(times: int) -> str:
    """What the score of ``times`` the base's context is called."""
    return f"context_{times}x"


def longer_contexts(taking: Taking) -> Scores:
    """Perplexity of Wikipedia's articles, joined to texts of four times the base's context.

    Raises:
        UserError: the base does not say what context it was made for, or there is no text.
    """
    subject = taking.subject
    taking.progress.note("scoring longer contexts")
    original = context_of(subject.plan.model.config)
    if original is None:
        raise UserError(
            "the model does not say for what context it was made",
            where=f"model {subject.plan.model.name}, [config]",
            expected="max_position_embeddings",
            hint='take "contexts" out of score.also',
        )
    joined: list[int] = []
    for page in read_pages(subject.data_folder):
        joined += [subject.tokenizer.eos_token_id, *subject.tokenizer.encode(page)]
    length = TIMES[-1] * original
    texts = [joined[at : at + length] for at in range(0, len(joined) - length + 1, length)]
    return Scores(tuple(score_contexts(taking.likelihood, texts, original, taking.place)))


def score_contexts(
    likelihood: Likelihood, texts: Sequence[Sequence[int]], original: int, place: Place
) -> list[Score]:
    """Perplexity of token sequences in windows of 1, 2 and 4 times ``original`` positions.

    Texts are cut to the longest window, so that every window scores the same tokens; each window
    but the first of a text moves on by half its length. Lengths beyond the model's own context
    are left out.

    Raises:
        DivergedError: a log-likelihood is not finite.
        UserError: no text is as long as the longest window.
    """
    longest = TIMES[-1] * original
    cut = [np.array(text[:longest]) for text in texts if len(text) >= longest]
    if not cut:
        raise UserError(
            f"no text of {longest} tokens", where="score.also", hint='take "contexts" out of it'
        )
    pairs = [(text, np.ones(len(text), bool)) for text in cut]
    names = [str(index) for index in range(len(cut))]
    found = []
    for times in TIMES:
        window = times * original
        if likelihood.context is not None and window > likelihood.context:
            continue
        losses = negative_log_likelihoods(likelihood, pairs, window, window // 2)
        counts = np.array([len(loss) for loss in losses], float)
        items = Items(names, names, np.array([loss.sum() for loss in losses]), counts)
        metric = Metric(context_task(times), "perplexity", "per token", "lower", transform="exp")
        asked: dict[str, JsonValue] = {"window": window, "stride": window // 2, "data": DATA}
        details: dict[str, JsonValue] = {
            **asked,
            "tokens": int(counts.sum()),
            **likelihood.details,
        }
        found.append(place.write(metric, items, asked=asked, details=details))
    return found
