"""Conversation: what the corpus layer hands on, messages in order with who wrote them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Speaker = Literal["user", "assistant"]
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; its text has no surrounding whitespace.

    A reply that is not ``trained`` (``weight: 0`` in the data) is context only.
    """

    role: Role
    text: str
    id: str
    trained: bool = True


@dataclass(frozen=True, slots=True)
class Conversation:
    """Alternating turns from a first user message to a last assistant message.

    A system message may stand in front of them.
    """

    id: str
    tree_id: str
    language: str
    messages: tuple[Message, ...]

    @property
    def opening(self) -> tuple[Message, ...]:
        """What stands before the first reply: the first prompt, and a system message if any."""
        return self.messages[: [m.role for m in self.messages].index("assistant")]

    def exchanges(self) -> list[tuple[Message, Message]]:
        """Every reply with the message that it answers."""
        return [
            (before, reply)
            for before, reply in zip(self.messages, self.messages[1:], strict=False)
            if reply.role == "assistant"
        ]


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
