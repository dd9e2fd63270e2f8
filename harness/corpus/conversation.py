"""Conversation: what the corpus layer hands on, messages in order with who wrote them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; its text has no surrounding whitespace."""

    role: Role
    text: str
    id: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Alternating turns from a first user message to a last assistant message."""

    id: str
    tree_id: str
    language: str
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two replies to one context, of which people ranked ``better`` above ``worse``.

    ``context`` ends with a user message. Every pair of ranked siblings makes one
    PreferencePair: k ranked replies give k (k - 1) / 2. Pairs of one tree are not independent.
    """

    id: str
    tree_id: str
    context: tuple[Message, ...]
    better: Message
    worse: Message
