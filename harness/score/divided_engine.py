"""Divided engine: answers to prompts that several devices generate together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.parallel.divide import spans
from harness.parallel.ranks import Ranks
from harness.score.engine import FastLM
from harness.score.likelihood import Likelihood


@dataclass(frozen=True)
class SharedPrompts:
    """Prompts with their settings, ``size`` a batch, that other devices shall help to answer."""

    args: tuple[tuple[str, dict[str, Any]], ...]
    size: int


@dataclass(frozen=True)
class BareRequest:
    """As much of an lm-eval request as its backend reads."""

    args: tuple[str, dict[str, Any]]


class DividedLM(FastLM):
    """Every device generates some of the batches that one device would generate, alike.

    What is drawn at random, or asked in several ways at once, the first device answers alone.
    """

    def __init__(self, model: Any, tokenizer: Any, likelihood: Likelihood, ranks: Ranks) -> None:
        """Take the model, and what answers queries about it on all ``ranks``."""
        super().__init__(model, tokenizer, likelihood)
        self._ranks = ranks

    def _answered(self, requests: list[Any], size: int, disable_tqdm: bool) -> list[str]:  # noqa: FBT001
        """See :class:`FastLM`; the others are asked to help."""
        args = tuple(request.args for request in requests)
        if len({repr(settings) for _, settings in args}) > 1 or args[0][1].get("do_sample"):
            return super()._answered(requests, size, disable_tqdm)
        prompts = SharedPrompts(args, size)
        self._ranks.hand_out(prompts)
        return self.share(prompts)

    def share(self, prompts: SharedPrompts) -> list[str]:
        """Answer some of the batches, and return the answers of all devices, in order."""
        # lm-eval's own order, whose neighbours make a batch
        texts = [text for text, _ in prompts.args]
        order = sorted(range(len(texts)), key=lambda i: (-len(self.tok_encode(texts[i])), texts[i]))
        starts = range(0, len(order), prompts.size)
        batches = [order[start : start + prompts.size] for start in starts]
        part = spans([len(batch) for batch in batches], self._ranks.count)[self._ranks.index]
        mine = [index for place in part for index in batches[place]]
        found: list[str] = []
        if mine:
            chosen = [BareRequest(prompts.args[index]) for index in mine]
            found = super()._answered(chosen, prompts.size, disable_tqdm=True)
        answers = dict[int, str]()
        for pairs in self._ranks.gather(list(zip(mine, found, strict=True))):
            answers.update(pairs)
        return [answers[index] for index in range(len(texts))]
