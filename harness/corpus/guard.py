"""Guard: special tokens inside the texts of conversations stay text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.corpus.frames import Rendered
from harness.corpus.tokens import IntArray
from harness.errors import CorpusError

GUARD_START, GUARD_END = "\U0010fff0", "\U0010fff1"


class Guard:
    """Tokenises conversations whose texts hold special tokens, so that those stay text.

    A copy of the tokenizer takes the template's own special tokens under other names and all
    other occurrences as text. So everything else is cut and spaced as it is elsewhere.
    """

    def __init__(self, tokenizer: Any, special: re.Pattern[str]) -> None:
        """Copy the tokenizer's core."""
        from tokenizers import AddedToken, Tokenizer

        self._special = special
        self._core = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._core.no_padding()
        self._core.no_truncation()
        self._core.encode_special_tokens = True
        self._names: dict[str, str] = {}
        self._ids: dict[int, int] = {}
        for number, (identity, token) in enumerate(tokenizer.added_tokens_decoder.items()):
            if not special.fullmatch(token.content):
                continue
            name = f"{GUARD_START}{number}{GUARD_END}"
            self._names[token.content] = name
            stand_in = AddedToken(
                name, lstrip=token.lstrip, rstrip=token.rstrip, normalized=False, special=False
            )
            self._core.add_tokens([stand_in])
            stand_in_id = self._core.token_to_id(name)
            if stand_in_id is not None:
                self._ids[stand_in_id] = identity

    def disguise(self, item: Rendered) -> tuple[str, dict[int, int]]:
        """The text with other names for the template's special tokens.

        Also where each border of a reply in ``item.whole`` lies in it.
        """
        if any(GUARD_START in text for text in item.texts):
            raise CorpusError(
                "a text holds special tokens and U+10FFF0", where=f"conversation {item.where}"
            )
        borders = {*item.starts, *(place for span in item.spans for place in span)}
        text, places, position = "", dict[int, int](), 0
        for index, literal in enumerate(item.frame.literals):
            cut = 0
            for found in [*self._special.finditer(literal), None]:
                end = len(literal) if found is None else found.start()
                for place in range(position + cut, position + end + 1):
                    if place in borders:
                        places[place] = len(text) + place - position - cut
                text += literal[cut:end]
                if found is not None:
                    text += self._names[found.group()]
                    cut = found.end()
            position += len(literal)
            if position in borders:
                places[position] = len(text)
            if index < len(item.texts):
                text += item.texts[index]
                position += len(item.texts[index])
        return text, places

    def encode(self, text: str) -> tuple[IntArray, Sequence[tuple[int, int]]]:
        """Token ids of the tokenizer, and the characters of each."""
        encoding = self._core.encode(text, add_special_tokens=False)
        ids = [self._ids.get(token, token) for token in encoding.ids]
        return np.array(ids, dtype=np.int32), encoding.offsets
