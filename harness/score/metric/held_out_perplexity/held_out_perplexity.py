"""held_out_perplexity: the harness's perplexity as a metric module for ``evaluate.load``."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np

from harness.records.events import SILENCE
from harness.score.items import Items
from harness.score.likelihood import Likelihood
from harness.score.perplexity import negative_log_likelihoods

DESCRIPTION = """Perplexity of a causal language model on chosen tokens of token sequences:
exp of the mean negative log-likelihood over all of them together, each scored once, in windows
that overlap. Logits exist for a few positions at a time and their log-softmax is float32."""

INPUTS = """Args:
    input_ids: list of token id sequences.
    loss_mask: list of 0/1 sequences of the same lengths; 1 where a token is scored. The first
        token of a sequence has no context and is never scored.
    model: a transformers or PEFT causal language model, in the precision to score.
    window: tokens run at once; stride: tokens between window starts, less than window.
Returns:
    perplexity, standard_error (bootstrap over sequences; None for one), mean_nll (nats per
    token), tokens, and nll (summed nats of each sequence)."""


class HeldOutPerplexity(evaluate.Metric):  # type: ignore[misc]  # evaluate is untyped
    """See the module's description."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features(
                {
                    "input_ids": datasets.Sequence(datasets.Value("int64")),
                    "loss_mask": datasets.Sequence(datasets.Value("int8")),
                }
            ),
        )

    def _compute(
        self,
        input_ids: list[list[int]],
        loss_mask: list[list[int]],
        model: Any,
        window: int = 1024,
        stride: int = 512,
    ) -> dict[str, Any]:
        pairs = [(np.array(i), np.array(m)) for i, m in zip(input_ids, loss_mask, strict=True)]
        likelihood = Likelihood(model, 4096, SILENCE)
        losses = negative_log_likelihoods(likelihood, pairs, window, stride)
        sums = np.array([loss.sum() for loss in losses])
        counts = np.array([float(len(loss)) for loss in losses])
        names = [str(index) for index in range(len(losses))]
        items = Items(names, names, sums, counts)
        return {
            "perplexity": items.value("exp"),
            "standard_error": items.standard_error("exp"),
            "mean_nll": float(sums.sum() / counts.sum()),
            "tokens": int(counts.sum()),
            "nll": sums.tolist(),
        }
