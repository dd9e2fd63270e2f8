"""Perplexity: token-weighted, over windows with a stride, on the tokens that carry loss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.errors import UserError
from harness.score.items import Items, Metric, Place
from harness.score.subject import Scores, Subject, Taking

if TYPE_CHECKING:
    from harness.corpus.tokens import TokenSequence
    from harness.records.record import Score
    from harness.score.likelihood import Likelihood
    from harness.spec.suite import ScoreSpec, Split

PERPLEXITY = Metric("held_out", "perplexity", "per token", "lower", transform="exp", headline=True)
BITS_PER_BYTE = Metric("held_out", "bits_per_byte", "bits per byte", "lower")


@dataclass(frozen=True)
class Window:
    """Tokens ``start`` to ``end`` of a sequence are run; targets from ``fresh`` on are scored."""

    start: int
    end: int
    fresh: int


def windows(length: int, window: int, stride: int) -> Iterator[Window]:
    """Cover a sequence of ``length`` tokens so that each target is scored exactly once.

    Each window but the first scores only what the one before did not reach, so a target has at
    least ``window - stride`` tokens of context where the sequence has them.

    Raises:
        ValueError: ``stride`` over ``window - 1`` would leave targets without any context.
    """
    if not 0 < stride < window:
        msg = f"stride {stride} with a window of {window} tokens; it must be 1 to window - 1"
        raise ValueError(msg)
    start, fresh = 0, 1
    while fresh < length:
        end = min(start + window, length)
        yield Window(start, end, fresh)
        fresh, start = end, start + stride


def negative_log_likelihoods(
    likelihood: Likelihood,
    sequences: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    window: int,
    stride: int,
) -> list[npt.NDArray[np.float64]]:
    """Per sequence, the negative log-likelihood (nats) of each token that carries loss.

    Each sequence is ``(token ids [n], loss mask [n])``; the first token has no context and is
    never scored. Result arrays follow the order of the masked tokens.

    Raises:
        DivergedError: a value is not finite.
    """
    from harness.score.likelihood import Query

    queries, owners = [], []
    for index, (ids, mask) in enumerate(sequences):
        tokens, wanted = np.asarray(ids, np.int64), np.asarray(mask, bool)
        for part in windows(len(tokens), window, stride):
            targets = np.flatnonzero(wanted[part.fresh : part.end]) + part.fresh - part.start
            if targets.size:
                last = int(targets[-1]) + 1
                queries.append(Query(tokens[part.start : part.start + last], targets))
                owners.append(index)
    found: list[list[npt.NDArray[np.float64]]] = [[] for _ in sequences]
    for owner, answer in zip(owners, likelihood.answer(queries), strict=True):
        found[owner].append(-answer.log_probs)
    return [np.concatenate(parts) if parts else np.empty(0) for parts in found]


def held_out(taking: Taking) -> Scores:
    """Scores of the held-out conversations, or of the validation split where a trial asks for it.

    Raises:
        UserError: there are none.
    """
    subject, spec = taking.subject, taking.subject.plan.score
    side = spec.split.replace("_", "-")
    taking.progress.note(f"scoring {side} conversations")
    if not getattr(subject.corpus, spec.split):
        raise UserError(
            f"no {side} conversations to score",
            where=subject.corpus.result.name,
            hint=f"raise {spec.split}_fraction, or give a larger corpus",
        )
    sequences = sequences_of(subject, spec.split)
    texts = _texts(subject, sequences)
    found = score_held_out(taking.likelihood, sequences, texts, taking.place, spec)
    return Scores(tuple(found))


def _texts(subject: Subject, sequences: Sequence[TokenSequence]) -> dict[str, list[str]]:
    """What a reader sees of each item: the first prompt, and the text of the scored tokens."""
    conversations = getattr(subject.corpus, subject.plan.score.split)
    prompts = {c.id: c.opening[-1].text for c in conversations}
    scored = [sequence.input_ids[sequence.loss_mask].tolist() for sequence in sequences]
    return {
        "prompt": [prompts[sequence.conversation_id] for sequence in sequences],
        "target": [subject.tokenizer.decode(s, skip_special_tokens=True) for s in scored],
    }


def sequences_of(subject: Subject, split: Split) -> list[TokenSequence]:
    """The conversations of a split in tokens, as far as the suite scores them."""
    limit = subject.plan.score.held_out_tokens
    return [
        replace(
            sequence, input_ids=sequence.input_ids[:limit], loss_mask=sequence.loss_mask[:limit]
        )
        for sequence in subject.renderer.encode_all(getattr(subject.corpus, split))
    ]


def window_of(likelihood: Likelihood, spec: ScoreSpec) -> tuple[int, int]:
    """Window and stride as asked for, or cut to the model's context."""
    if likelihood.context is None or spec.window <= likelihood.context:
        return spec.window, spec.stride
    return likelihood.context, min(spec.stride, max(1, likelihood.context // 2))


def score_held_out(
    likelihood: Likelihood,
    sequences: Sequence[Any],
    texts: dict[str, list[str]],
    place: Place,
    spec: ScoreSpec,
) -> list[Score]:
    """Perplexity and bits per byte of held-out conversations (``TokenSequence``).

    ``texts`` holds for each conversation what its items show, and the ``target`` whose UTF-8
    bytes are counted. Perplexity is exp of the mean negative log-likelihood over all assistant
    tokens, end of turn included. Standard errors resample message trees. A window over the
    model's context is cut to it, and ``details`` shows both.

    Raises:
        DivergedError: a log-likelihood is not finite.
        UserError: no assistant token at all.
    """
    window, stride = window_of(likelihood, spec)
    pairs = [(sequence.input_ids, sequence.loss_mask) for sequence in sequences]
    losses = negative_log_likelihoods(likelihood, pairs, window, stride)
    sums = np.array([loss.sum() for loss in losses])
    counts = np.array([len(loss) for loss in losses], float)
    if not counts.sum():
        raise UserError(
            f"none of {len(sequences)} conversations has a token to score",
            expected="assistant tokens among the first held_out_tokens",
            hint="raise score.held_out_tokens",
        )
    items = [sequence.conversation_id for sequence in sequences]
    clusters = [sequence.tree_id for sequence in sequences]
    text_bytes = np.array([len(text.encode()) for text in texts["target"]], float)
    details: dict[str, Any] = {
        "window": window,
        "stride": stride,
        "window_asked": spec.window,
        "tokens": int(counts.sum()),
        "bytes": int(text_bytes.sum()),
        "clusters": len(set(clusters)),
        "standard_error": "bootstrap over message trees",
        **likelihood.details,
    }
    nats = Items(items, clusters, sums, counts, texts)
    bits = Items(items, clusters, sums / math.log(2), text_bytes, texts)
    asked: dict[str, Any] = {
        "window": window,
        "stride": stride,
        "held_out_tokens": spec.held_out_tokens,
    }
    return [
        place.write(replace(metric, task=spec.split), found, asked=asked, details=details)
        for metric, found in ((PERPLEXITY, nats), (BITS_PER_BYTE, bits))
    ]
