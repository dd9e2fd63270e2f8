"""Beginnings: texts that begin alike are tokenised from where they part, if that is the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from os.path import commonprefix
from typing import Any

ALIKE = 256  # characters, at least, that are worth it
FEWEST = 4  # texts that begin alike
LEFT_OVER = 3  # pieces at the end of what is common, whose extent what follows may change
PLAIN_PIECES = ("ByteLevel", "Digits", "Split")  # cut by what stands there, not by what came before
BEFORE_SPACE = r"(?!\S)"  # looks one character ahead, which LEFT_OVER allows for
# Classes of characters and escaped ones, in which nothing looks around.
CHARACTERS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]|\\[^ABGKYZbyz]", re.DOTALL)
# Looks behind or ahead, perhaps far: how digits are grouped from the right is decided by their end.
LOOKS_AROUND = re.compile(r"\(\?[=!<]|\\[ABGKYZbyz]|[\^$]")

Encode = Callable[[list[str]], list[list[int]]]


def cuts_locally(tokenizer: Any) -> bool:
    """Whether this tokenizer cuts a text into pieces from left to right, each merged by itself.

    Then the tokens of a text from the beginning of a piece on are those that it has in the text.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.normalizer is not None or backend.pre_tokenizer is None:
        return False
    if type(backend.model).__name__ != "BPE" or backend.model.dropout:
        return False
    found = json.loads(backend.pre_tokenizer.__getstate__())
    parts = found["pretokenizers"] if found["type"] == "Sequence" else [found]
    return all(_is_plain(part) for part in parts)


def _is_plain(part: dict[str, Any]) -> bool:
    joined = part.get("behavior", "Isolated") != "Isolated" or part.get("add_prefix_space", False)
    pattern = part.get("pattern", {}).get("Regex", "")
    return part["type"] in PLAIN_PIECES and not joined and not _looks_around(pattern)


def _looks_around(pattern: str) -> bool:
    """Whether what the regular expression matches may depend on more than what it matches."""
    return LOOKS_AROUND.search(CHARACTERS.sub("", pattern.replace(BEFORE_SPACE, ""))) is not None


def encode_sharing(
    tokenizer: Any, texts: Sequence[str], whole: Encode, rest: Encode
) -> list[list[int]]:
    """Tokens of each text as ``whole`` has them, with less work where many begin alike.

    ``rest`` is the same without the tokens that begin a text. The first, the last and the longest
    of texts that begin alike are tokenised whole, and all of them if one of these differs.
    """
    found: dict[str, list[int]] = {}
    if cuts_locally(tokenizer):
        alike: dict[str, list[str]] = {}
        for text in dict.fromkeys(texts):
            alike.setdefault(text[:ALIKE], []).append(text)
        for group in alike.values():
            if len(group) >= FEWEST:
                found |= _shared(tokenizer, group, whole, rest)
    left = [text for text in dict.fromkeys(texts) if text not in found]
    found |= zip(left, whole(left) if left else [], strict=True)
    return [found[text] for text in texts]


def _shared(tokenizer: Any, group: list[str], whole: Encode, rest: Encode) -> dict[str, list[int]]:
    """Tokens of texts that begin alike; nothing where they cannot be told so."""
    common = commonprefix([min(group), max(group)])  # noqa: RUF071 - characters, and no paths
    cut = _cut(tokenizer, common)
    ends = [text[cut:] for text in group]
    if cut < ALIKE or _holds_special(tokenizer, common[:cut], ends):
        return {}
    (start,) = whole([common[:cut]])
    found = dict(zip(group, ([*start, *end] for end in rest(ends)), strict=True))
    tried = list({group[0], min(group), max(group), max(group, key=len)})
    return found if whole(tried) == [found[text] for text in tried] else {}


def _cut(tokenizer: Any, common: str) -> int:
    """Where the last piece begins that is the same whatever follows, and follows no space.

    At the end of a text a space is another piece than before a word.
    """
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(common)
    starts = [start for _, (start, _) in pieces[: max(0, len(pieces) - LEFT_OVER)]]
    return next((at for at in reversed(starts) if at and not common[at - 1].isspace()), 0)


def _holds_special(tokenizer: Any, start: str, ends: Sequence[str]) -> bool:
    """Whether a token that is found before a text is cut into pieces is in ``start`` + an end.

    It may begin in ``start`` and be complete in some of the texts only.
    """
    names = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    last = start[-max(map(len, names), default=1) :]
    searched = [start, *(last + end for end in ends)]
    return any(name in text for name in names for text in searched)
