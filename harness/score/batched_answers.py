"""Batched answers: lm-eval's prompts continued side by side, or the reason why they are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import JsonValue

from harness.score.answers import Answers, Ask
from harness.score.body import TreeBody
from harness.score.likelihood import Likelihood
from harness.score.settings import own_ends, own_limit, own_settings
from harness.score.until import AnswerEnd, GenerationSettings

if TYPE_CHECKING:
    from harness.score.engine import PlainLM

Prompt = tuple[str, dict[str, Any]]


class BatchedAnswers:
    """Answers prompts as lm-eval's backend answers each alone, with less work.

    Attributes:
        details: how they were answered, and why not with less work; for the details of a score.
    """

    def __init__(self, lm: PlainLM, likelihood: Likelihood) -> None:
        """Take what tokenises prompts, and what runs the model."""
        self._lm, self._likelihood = lm, likelihood
        self.details: dict[str, JsonValue] = {"answers": "side by side after shared prefixes"}

    def answers(self, prompts: Sequence[Prompt]) -> list[str] | None:
        """The answers as lm-eval cuts them; None where lm-eval has to give them."""
        wanted = [self._lm.wanted(settings) for _, settings in prompts]
        rows = self._lm.prompts([text for text, _ in prompts])
        for index, want in enumerate(wanted):
            rows[index] = rows[index][-(self._lm.max_length - want.limit) :]
        tree, reason = self._likelihood.tree, self._reason(rows, wanted)
        if tree is not None and reason is None:
            found, reason = self._answered(tree, rows, wanted)
            if found is not None:
                return found
        self.details = {"answers": "lm-eval's own", "answers_reason": reason}
        return None

    def _reason(
        self, rows: Sequence[Sequence[int]], wanted: Sequence[GenerationSettings]
    ) -> str | None:
        """Why lm-eval has to answer, as far as it is known before."""
        if (limit := own_limit(self._lm.model)) is not None:
            return f"the model's own max_new_tokens = {limit}"
        if other := sorted({setting for want in wanted for setting in want.other}):
            return f"asked for with {', '.join(other)}"
        if not all(rows):
            return "an empty prompt"
        longest = max(len(row) + want.limit for row, want in zip(rows, wanted, strict=True))
        return why_not(self._lm.model, self._likelihood, longest)

    def _answered(
        self, tree: TreeBody, rows: Sequence[list[int]], wanted: Sequence[GenerationSettings]
    ) -> tuple[list[str] | None, str | None]:
        """The answers, or why there are none."""
        ends = own_ends(self._lm.model)
        endings = {want.until: AnswerEnd(self._lm.tokenizer, want.until, ends) for want in wanted}
        asks = [
            Ask(np.array(row, np.int64), want.limit, endings[want.until].over)
            for row, want in zip(rows, wanted, strict=True)
        ]
        answers = Answers(tree, self._likelihood.pass_tokens, self._likelihood.progress)
        found = answers.answered(asks)
        if found is None:
            return None, answers.reason
        texts = [
            endings[want.until].text(tokens) for tokens, want in zip(found, wanted, strict=True)
        ]
        return texts, None


def why_not(model: Any, likelihood: Likelihood, longest: int) -> str | None:
    """Why :class:`Answers` cannot continue prompts to ``longest`` tokens as transformers would."""
    if likelihood.tree is None or likelihood.tree.is_sharded:
        return likelihood.reason or "the model lies on several devices"
    if own := own_settings(model):
        return f"the model's own {own}"
    stretched = likelihood.stretches_after
    if stretched is not None and longest >= stretched:
        return f"from {stretched} tokens on, positions depend on the length of a sequence"
    return None
