"""Frames: what a chat template writes around the texts of a conversation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from harness.corpus.templates import TEMPLATES
from harness.errors import CorpusError


@dataclass(frozen=True, slots=True)
class Frame:
    """What a template writes around the texts of ``len(literals) - 1`` alternating messages.

    The rendered text is ``literals[0] + text 0 + literals[1] + text 1 + …``. Reply ``i`` takes
    the last ``leads[i]`` characters before its text and the first ``tails[i]`` after it, so it
    starts where the generation prompt ends and goes through the end-of-turn token.
    """

    literals: tuple[str, ...]
    leads: dict[int, int]
    tails: dict[int, int]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text: ``spans`` are the [start, end) characters that carry loss."""

    texts: tuple[str, ...]
    frame: Frame
    whole: str
    spans: tuple[tuple[int, int], ...]

    def pieces(self, special: re.Pattern[str]) -> Iterator[tuple[str, bool, bool]]:
        """(text, is a special token of the template, carries loss), cut where replies start."""
        run, trained = "", False
        for index, literal in enumerate(self.frame.literals):
            reply = len(literal) - self.frame.leads.get(index, 0)
            position = 0
            for found in special.finditer(literal):
                run += literal[position : found.start()]
                if run:
                    yield run, False, trained
                yield found.group(), True, trained
                run, trained, position = "", False, found.end()
            run += literal[position:reply]
            if index in self.frame.leads:
                if run:
                    yield run, False, trained
                run, trained = literal[reply:], True
            if index < len(self.texts):
                run += self.texts[index]
        if run:
            yield run, False, trained


class Framer:
    """Finds the frames of one chat template and refuses a template whose masks would be wrong.

    Frames are found once per number of messages, by rendering marks in place of texts. Every
    conversation is then rendered by the template as well and compared, so a template that
    changes a text, or looks into it, is an error and never a wrong mask.
    """

    def __init__(self, tokenizer: Any, source: str, special: re.Pattern[str]) -> None:
        """Take a tokenizer, the jinja ``source`` and a pattern of all special tokens.

        Raises:
            CorpusError: replies are not followed by a special token.
        """
        self._tokenizer = tokenizer
        self._frames: dict[tuple[int, bool], Frame] = {}
        self.source = source
        if not self.raw(["a"], prompt=True).startswith(tokenizer.bos_token or ""):
            self.source = "{{ bos_token }}" + source
        tail = self._split(2, prompt=False)[2]
        found = special.match(tail.lstrip())
        if found is None:
            raise self._unusable("no special token follows the assistant's text")
        self.end_of_turn = found.group()

    def raw(self, texts: Sequence[str], *, prompt: bool) -> str:
        """What the template makes of alternating texts, the user's first."""
        messages = [
            {"role": "assistant" if index % 2 else "user", "content": text}
            for index, text in enumerate(texts)
        ]
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages, chat_template=self.source, tokenize=False, add_generation_prompt=prompt
            )
        except TemplateError as error:
            raise self._unusable(f"it fails with: {error}") from None
        return text

    def render(self, texts: Sequence[str], where: str, *, prompt: bool) -> Rendered:
        """Alternating texts as the template writes them.

        Raises:
            CorpusError: the template changes a text, or its masks cannot be exact.
        """
        frame = self.frame(len(texts), prompt=prompt)
        pieces, spans, length = [frame.literals[0]], [], len(frame.literals[0])
        for index, text in enumerate(texts):
            end = length + len(text)
            if index in frame.leads:
                spans.append((length - frame.leads[index], end + frame.tails[index]))
            pieces += [text, frame.literals[index + 1]]
            length = end + len(frame.literals[index + 1])
        whole = "".join(pieces)
        if self.raw(texts, prompt=prompt) != whole:
            raise CorpusError(
                "the chat template changes a message's text",
                where=f"conversation {where}",
                expected="each text written as it is",
                hint="texts need to be free of surrounding whitespace, or use another template",
            )
        return Rendered(tuple(texts), frame, whole, tuple(spans))

    def frame(self, count: int, *, prompt: bool) -> Frame:
        """The frame of ``count`` messages; with ``prompt`` it ends in the assistant's header."""
        if (count, prompt) not in self._frames:
            self._frames[count, prompt] = self._make_frame(count, prompt=prompt)
        return self._frames[count, prompt]

    def _make_frame(self, count: int, *, prompt: bool) -> Frame:
        literals = self._split(count, prompt=prompt)
        leads, tails = {}, {}
        for index in range(1, count, 2):
            before = self._split(index, prompt=True)
            header = before[index]
            lead = literals[index][len(header) :]
            if (*before[:index], header + lead) != literals[: index + 1] or lead.strip():
                raise self._unusable("a generation prompt is not a prefix of the conversation")
            after = literals[index + 1]
            blank = len(after) - len(after.lstrip())
            if not after.startswith(self.end_of_turn, blank):
                raise self._unusable(f"a reply does not end with {self.end_of_turn}")
            leads[index], tails[index] = len(lead), blank + len(self.end_of_turn)
        return Frame(literals, leads, tails)

    def _split(self, count: int, *, prompt: bool) -> tuple[str, ...]:
        """The template's own text between ``count`` messages, found with marks for texts."""
        marks = [f"\ue000{index}\ue001" for index in range(count)]
        literals = re.split("\ue000\\d+\ue001", self.raw(marks, prompt=prompt))
        if len(literals) != count + 1:
            raise self._unusable("it does not write every message exactly once")
        return tuple(literals)

    def _unusable(self, reason: str) -> CorpusError:
        return CorpusError(
            f"loss masks cannot be exact with this chat template: {reason}",
            where=self._tokenizer.name_or_path,
            hint=f"set chat_template in the model's file to one of {', '.join(TEMPLATES)}",
        )
