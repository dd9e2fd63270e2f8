"""Frames: what a chat template writes around the texts of a conversation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.corpus.conversation import Message, Role
from harness.corpus.templates import RENDERINGS, ChatTemplate
from harness.errors import CorpusError

LETTERS = {"system": "s", "user": "u", "assistant": "a"}
ROLES: dict[str, Role] = {"s": "system", "u": "user", "a": "assistant"}


@dataclass(frozen=True, slots=True)
class Frame:
    """What a template writes around the texts of ``len(literals) - 1`` messages.

    The rendered text is ``literals[0] + text 0 + literals[1] + text 1 + …``. Reply ``i`` takes
    the last ``leads[i]`` characters before its text and the first ``tails[i]`` after it, so it
    starts where the generation prompt ends and goes through the end-of-turn token.
    ``specials`` counts the special tokens in the literals.
    """

    literals: tuple[str, ...]
    leads: dict[int, int]
    tails: dict[int, int]
    specials: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text.

    ``spans`` are the [start, end) characters that carry loss; ``starts`` are the characters
    where generation prompts end, one for each reply.
    """

    texts: tuple[str, ...]
    frame: Frame
    whole: str
    spans: tuple[tuple[int, int], ...]
    starts: tuple[int, ...]
    where: str


class Framer:
    """Finds the frames of one chat template and refuses a template whose masks would be wrong.

    Frames are found once per number of messages, by rendering marks in place of texts. Every
    conversation is then rendered by the template as well and compared, so a template that
    changes a text, or looks into it, is an error and never a wrong mask.
    """

    def __init__(self, tokenizer: Any, source: str, special: re.Pattern[str], day: str) -> None:
        """Take a tokenizer, the jinja ``source``, all special tokens, and the date of templates.

        What the template writes is all there is: a BOS token only where it writes one.

        Raises:
            CorpusError: replies are not followed by a special token, or the template fails.
        """
        self._frames: dict[tuple[str, bool], Frame] = {}
        self._special = special
        self.template = ChatTemplate(tokenizer, source, day)
        self.template.probe(_turns("ua", "ab"))
        first = self._raw("u", "a", prompt=True)
        if any(first != self._raw("u", "a", prompt=True) for _ in range(RENDERINGS - 1)):
            raise self.template.fault("it writes something else each time", None)
        tail = self._split("ua", prompt=False)[2]
        found = special.match(tail.lstrip())
        if found is None:
            raise self._unusable("no special token follows the assistant's text")
        self.end_of_turn = found.group()
        self.knows_system = self._knows_system()

    def _raw(self, roles: str, texts: Sequence[str], *, prompt: bool) -> str:
        return self.template.render(_turns(roles, texts), prompt=prompt)

    def _knows_system(self) -> bool:
        """Whether the template writes a system message of the data, once and in front."""
        try:
            self._split("su", prompt=True)
        except CorpusError:
            return False
        return True

    def render(self, messages: Sequence[Message], where: str, *, prompt: bool) -> Rendered:
        """Messages as the template writes them.

        A system message that the template does not know stands in front of the first prompt.

        Raises:
            CorpusError: the template changes a text, or its masks cannot be exact.
        """
        if messages[0].role == "system" and not self.knows_system:
            system, user, *rest = messages
            joined = f"{system.text}\n\n{user.text}"
            messages = [Message("user", joined, user.id), *rest]
        roles = "".join(LETTERS[message.role] for message in messages)
        texts = [message.text for message in messages]
        frame = self.frame(roles, prompt=prompt)
        pieces, length = [frame.literals[0]], len(frame.literals[0])
        spans, starts = [], []
        for index, message in enumerate(messages):
            end = length + len(message.text)
            if index in frame.leads:
                starts.append(length - frame.leads[index])
                if message.trained:
                    spans.append((starts[-1], end + frame.tails[index]))
            pieces += [message.text, frame.literals[index + 1]]
            length = end + len(frame.literals[index + 1])
        whole = "".join(pieces)
        if self._raw(roles, texts, prompt=prompt) != whole:
            raise CorpusError(
                "the chat template changes a message's text",
                where=f"conversation {where}",
                expected="each text written as it is",
                hint="texts need to be free of surrounding whitespace, or use another template",
            )
        return Rendered(tuple(texts), frame, whole, tuple(spans), tuple(starts), where)

    def frame(self, roles: str, *, prompt: bool) -> Frame:
        """The frame of messages of ``roles``; with ``prompt`` it ends in the assistant's header."""
        if (roles, prompt) not in self._frames:
            self._frames[roles, prompt] = self._make_frame(roles, prompt=prompt)
        return self._frames[roles, prompt]

    def _make_frame(self, roles: str, *, prompt: bool) -> Frame:
        literals = self._split(roles, prompt=prompt)
        leads, tails = {}, {}
        for index in (place for place, role in enumerate(roles) if role == "a"):
            before = self._split(roles[:index], prompt=True)
            header = before[index]
            lead = literals[index][len(header) :]
            if (*before[:index], header + lead) != literals[: index + 1] or lead.strip():
                raise self.not_a_prefix()
            after = literals[index + 1]
            blank = len(after) - len(after.lstrip())
            if not after.startswith(self.end_of_turn, blank):
                raise self._unusable(f"a reply does not end with {self.end_of_turn}")
            leads[index], tails[index] = len(lead), blank + len(self.end_of_turn)
        specials = sum(len(self._special.findall(literal)) for literal in literals)
        return Frame(literals, leads, tails, specials)

    def _split(self, roles: str, *, prompt: bool) -> tuple[str, ...]:
        """The template's own text between messages, found with marks for texts."""
        marks = [f"\ue000{index}\ue001" for index in range(len(roles))]
        parts = re.split("\ue000(\\d+)\ue001", self._raw(roles, marks, prompt=prompt))
        if parts[1::2] != [str(index) for index in range(len(roles))]:
            raise self._unusable("it does not write every message exactly once, in order")
        return tuple(parts[::2])

    def not_a_prefix(self, reason: str = "") -> CorpusError:
        """What is said of a template whose prompts are not what conversations begin with."""
        return self._unusable(f"a generation prompt is not a prefix of the conversation{reason}")

    def _unusable(self, reason: str) -> CorpusError:
        line = self.template.line_of("add_generation_prompt")
        return self.template.fault(f"loss masks cannot be exact: {reason}", line)


def _turns(roles: str, texts: Sequence[str]) -> list[dict[str, str]]:
    return [{"role": ROLES[role], "content": text} for role, text in zip(roles, texts, strict=True)]
