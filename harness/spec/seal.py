"""Seal: a first line in every JSON document by which a later reader sees that it is unchanged."""

from __future__ import annotations

import hashlib
import re

SEAL = re.compile(r'\{\n "digest": "([^"\n]*)",\n')


def sealed(text: str) -> str:
    """A JSON object, indented by one, with a digest of all other lines as its first."""
    rest = text.removeprefix("{\n")
    return f'{{\n "digest": "{_digest(rest)}",\n{rest}'


def unsealed(text: str) -> tuple[str, bool]:
    """The document as it was before it was sealed, and whether it is unchanged.

    Documents of older harnesses have no seal, and are taken as they are. A first line damaged so
    that it is no seal any more is left in, an unknown key to whoever validates the document.
    """
    seal = SEAL.match(text)
    if seal is None:
        return text, True
    rest = text[seal.end() :]
    return "{\n" + rest, _digest(rest) == seal[1]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
