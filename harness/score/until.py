"""Until: what lm-eval asks of a generated answer, and after which token its backend would stop."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)

LOOKED_BACK = 2  # tokens more than a stop string has, as in lm-eval
GREEDY = {"do_sample": False, "temperature": 0.0}
SAMPLING = frozenset(("min_p", "top_k", "top_p", "typical_p"))  # say nothing of greedy answers


@dataclass(frozen=True)
class GenerationSettings:
    """How a prompt shall be continued: up to one of ``until``, by at most ``limit`` tokens.

    ``other`` are settings beyond those of greedy decoding.
    """

    until: tuple[str, ...]
    limit: int
    other: tuple[str, ...]

    @classmethod
    def of(cls, settings: dict[str, Any], limit: int, end: str) -> GenerationSettings:
        """Read a request's settings; ``limit`` is lm-eval's default, ``end`` the model's."""
        found: dict[str, Any] = dict(normalize_gen_kwargs(settings, limit))
        until = handle_stop_sequences(found.pop("until", None), eos=end)
        limit = int(found.pop("max_gen_toks"))
        other = [
            f"{key} = {value}"
            for key, value in sorted(found.items())
            if key not in SAMPLING and (key not in GREEDY or value != GREEDY[key])
        ]
        return cls(tuple(until), limit, tuple(other))


class AnswerEnd:
    """After which token an answer is over, as lm-eval's backend finds it for an answer alone.

    It looks for each stop string in the text of the last tokens, a few more than the string has.
    """

    def __init__(self, tokenizer: Any, until: Sequence[str], ends: Collection[int]) -> None:
        """``ends`` are tokens that end an answer; ``until`` are strings that do."""
        self._tokenizer = tokenizer
        self._ends = frozenset(ends)
        self._until = [
            (text, len(tokenizer.encode(text, add_special_tokens=False)) + LOOKED_BACK)
            for text in until
        ]
        self._longest = max((size for _, size in self._until), default=0)
        self._can_skip = _shows_parts(tokenizer)

    def over(self, tokens: list[int], seen: int) -> int | None:
        """The number of tokens after which an answer is over, beyond those ``seen``; or None."""
        if self._can_skip and not self._may_end(tokens, seen):
            return None
        for count in range(seen + 1, len(tokens) + 1):
            if tokens[count - 1] in self._ends or self._stops(tokens[:count]):
                return count
        return None

    def text(self, tokens: list[int]) -> str:
        """The answer that lm-eval makes of tokens."""
        found = self._tokenizer.decode(tokens, skip_special_tokens=True)
        stops = [text for text, _ in self._until]
        answer: str = postprocess_generated_text(found, stops, think_end_token=None)
        return answer

    def _may_end(self, tokens: list[int], seen: int) -> bool:
        """Whether a new token ends the answer, or a stop string stands anywhere near the end."""
        if not self._ends.isdisjoint(tokens[seen:]):
            return True
        text = self._tokenizer.decode(tokens[max(0, seen + 1 - self._longest) :])
        return any(stop in text for stop, _ in self._until)

    def _stops(self, tokens: list[int]) -> bool:
        texts = dict[int, str]()
        for stop, size in self._until:
            if size not in texts:
                texts[size] = self._tokenizer.decode(tokens[-size:])
            if stop in texts[size]:
                return True
        return False


def _shows_parts(tokenizer: Any) -> bool:
    """Whether the text of some tokens contains the text of any run of them.

    It does where tokens are bytes; other decoders strip spaces, or judge bytes by their neighbours.
    """
    if getattr(tokenizer, "clean_up_tokenization_spaces", False):
        return False
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    return type(decoder).__name__ == "ByteLevel"
