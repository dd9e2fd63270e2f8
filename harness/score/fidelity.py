"""Fidelity: how far a form's next-token distributions lie from those of the model as trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import JsonValue

from harness.score.items import Items, Metric, Place

if TYPE_CHECKING:
    from harness.corpus.tokens import TokenSequence
    from harness.records.record import Score

TASK = "fidelity"
DIVERGENCE = Metric(TASK, "kl_divergence", "nats per token", "lower")
SAME_TOP = Metric(TASK, "same_top_token", "fraction", "higher")
POSITIONS = 64  # whose logits are compared at a time


@dataclass(frozen=True)
class Compared:
    """One conversation: sums over its scored tokens, and the largest difference."""

    tokens: int
    divergence: float
    same_top: int
    largest: float


@dataclass(frozen=True)
class Pair:
    """The model as trained and a form of it; ``window`` bounds the tokens of a conversation."""

    trained: Any
    form: Any
    window: int


def score_fidelity(
    pair: Pair, sequences: Sequence[TokenSequence], place: Place, details: dict[str, JsonValue]
) -> list[Score]:
    """KL divergence of the form from the trained model per token, and how often top tokens agree.

    The divergence is sum p (log p - log q) with p of the model as trained, over the tokens that
    carry loss among the first ``window`` of each conversation. ``details`` get the largest
    difference of two log-probabilities.
    """
    found = [compare(pair, sequence) for sequence in sequences]
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
def compare(pair: Pair, sequence: TokenSequence) -> Compared:
    """Both models' distributions of one conversation's scored tokens."""
    window = pair.window
    ids = torch.from_numpy(sequence.input_ids[:window].astype(np.int64))[None]
    wanted = torch.from_numpy(np.flatnonzero(sequence.loss_mask[1:window]))
    if not len(wanted):
        return Compared(0, 0.0, 0, 0.0)
    divergence, same_top, largest = 0.0, 0, 0.0
    for ours, theirs in _log_probs(pair, ids, wanted):
        divergence += float((ours.exp() * (ours - theirs)).sum(dtype=torch.float64))
        same_top += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        largest = max(largest, float((ours - theirs).abs().max()))
    return Compared(len(wanted), max(divergence, 0.0), same_top, largest)


def _log_probs(
    pair: Pair, ids: torch.Tensor, wanted: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    logits = [
        model(input_ids=ids.to(model.device)).logits[0, -ids.shape[1] :][wanted.to(model.device)]
        for model in (pair.trained, pair.form)
    ]
    for start in range(0, len(wanted), POSITIONS):
        ours, theirs = (part[start : start + POSITIONS].float().log_softmax(-1) for part in logits)
        words = min(ours.shape[-1], theirs.shape[-1])
        yield ours[:, :words], theirs[:, :words].to(ours.device)
