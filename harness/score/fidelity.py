"""Fidelity: how far a form's next-token distributions lie from those of the model as trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import JsonValue

from harness.score.body import Body, WholeBody
from harness.score.items import Items, Metric, Place
from harness.score.prefixes import IntArray
from harness.score.probe import find_ways, stretches_after

if TYPE_CHECKING:
    from harness.corpus.tokens import TokenSequence
    from harness.records.record import Score

TASK = "fidelity"
DIVERGENCE = Metric(TASK, "kl_divergence", "nats per token", "lower")
SAME_TOP = Metric(TASK, "same_top_token", "fraction", "higher")
POSITIONS = {"cpu": 64, "cuda": 1024}  # whose logits are compared at a time
PASS_TOKENS = {"cpu": 512, "cuda": 4096}  # of one pass


@dataclass(frozen=True)
class Compared:
    """One conversation: sums over its scored tokens, and the largest difference."""

    tokens: int
    divergence: float
    same_top: int
    largest: float


@dataclass(frozen=True)
class FormPair:
    """The model as trained and a form of it; ``window`` bounds the tokens of a conversation."""

    trained: Any
    form: Any
    window: int


def score_fidelity(
    pair: FormPair, sequences: Sequence[TokenSequence], place: Place, details: dict[str, JsonValue]
) -> list[Score]:
    """KL divergence of the form from the trained model per token, and how often top tokens agree.

    The divergence is sum p (log p - log q) with p of the model as trained, over the tokens that
    carry loss among the first ``window`` of each conversation. ``details`` get the largest
    difference of two log-probabilities.
    """
    found = compare(pair, sequences)
    kept = [(s, c) for s, c in zip(sequences, found, strict=True) if c.tokens]
    names = [sequence.conversation_id for sequence, _ in kept]
    clusters = [sequence.tree_id for sequence, _ in kept]
    counts = np.array([c.tokens for _, c in kept], float)
    details = {
        **details,
        "tokens": int(counts.sum()),
        "largest_difference": max((c.largest for _, c in kept), default=0.0),
    }
    values = {
        DIVERGENCE: np.array([c.divergence for _, c in kept], float),
        SAME_TOP: np.array([c.same_top for _, c in kept], float),
    }
    return [
        place.write(
            metric,
            Items(names, clusters, above, counts),
            asked={"window": pair.window},
            details=details,
        )
        for metric, above in values.items()
    ]


@torch.inference_mode()
def compare(pair: FormPair, sequences: Sequence[TokenSequence]) -> list[Compared]:
    """Both models' distributions of each conversation's scored tokens, in the order given.

    Conversations of like length are run side by side where both models give their own logits
    that way, and else one at a time.
    """
    rows = [sequence.input_ids[: pair.window].astype(np.int64) for sequence in sequences]
    wanted = [np.flatnonzero(sequence.loss_mask[1 : pair.window]) for sequence in sequences]
    bodies, budget = _bodies(pair)
    found = [Compared(0, 0.0, 0, 0.0)] * len(rows)
    for batch in _batches(rows, budget):
        for index, compared in zip(batch, _compare(bodies, batch, rows, wanted), strict=True):
            found[index] = compared
    return found


def _bodies(pair: FormPair) -> tuple[tuple[Body, Body], int]:
    """How both models are run, and how many tokens at a time; 0 for one conversation at a time."""
    models = (pair.trained, pair.form)
    budget = PASS_TOKENS.get(models[0].device.type, PASS_TOKENS["cpu"])
    alone = any(
        getattr(model, "is_loaded_in_8bit", False)  # rounds inputs by what is in the batch
        or (stretches_after(model) or pair.window) < pair.window
        for model in models
    )
    ways = [find_ways(model).bodies for model in models]
    if alone or not all(bodies[0].takes_rows for bodies in ways):
        return (WholeBody(models[0]), WholeBody(models[1])), 0
    return (ways[0][0], ways[1][0]), budget


def _batches(rows: Sequence[IntArray], budget: int) -> Iterator[list[int]]:
    """Indices of rows to run together: long ones first, so that little is padded."""
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    while order:
        count = max(1, budget // max(1, len(rows[order[0]])))
        yield order[:count]
        order = order[count:]


def _compare(
    bodies: tuple[Body, Body],
    batch: Sequence[int],
    rows: Sequence[IntArray],
    wanted: Sequence[IntArray],
) -> list[Compared]:
    """What :func:`compare` finds for the conversations of one batch."""
    width = max(len(rows[index]) for index in batch)
    states = [body.run_rows([rows[index] for index in batch]) for body in bodies]
    places = np.concatenate([at * width + wanted[index] for at, index in enumerate(batch)])
    owners = np.repeat(np.arange(len(batch)), [len(wanted[index]) for index in batch])
    divergence, same, largest = (np.zeros(len(batch)) for _ in range(3))
    step = POSITIONS.get(states[0].device.type, POSITIONS["cpu"])
    for start in range(0, len(places), step):
        chosen, owner = places[start : start + step], owners[start : start + step]
        ours, theirs = _log_probs(bodies, states, chosen)
        gaps = (ours - theirs).abs().amax(-1).double().cpu().numpy()
        found = (ours.exp() * (ours - theirs)).sum(-1, dtype=torch.float64).cpu().numpy()
        equal = (ours.argmax(-1) == theirs.argmax(-1)).cpu().numpy()
        np.add.at(divergence, owner, found)
        np.add.at(same, owner, equal)
        np.maximum.at(largest, owner, gaps)
    return [
        Compared(len(wanted[index]), max(float(nats), 0.0), int(count), float(gap))
        for index, nats, count, gap in zip(batch, divergence, same, largest, strict=True)
    ]


def _log_probs(
    bodies: tuple[Body, Body], states: Sequence[torch.Tensor], places: IntArray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both models' log-probabilities [n, words] at flat places; of the words that both know."""
    ours, theirs = (
        body.logits(hidden[torch.from_numpy(places).to(hidden.device)]).float().log_softmax(-1)
        for body, hidden in zip(bodies, states, strict=True)
    )
    words = min(ours.shape[-1], theirs.shape[-1])
    return ours[:, :words], theirs[:, :words].to(ours.device)
