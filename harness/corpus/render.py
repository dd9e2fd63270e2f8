"""Renderer: conversations become token sequences with a loss mask exact to the token."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from harness.corpus.conversation import Conversation, Message
from harness.corpus.frames import Framer, Rendered
from harness.corpus.guard import Guard
from harness.corpus.templates import TEMPLATES
from harness.corpus.tokens import BoolArray, IntArray, TokenSequence
from harness.errors import CorpusError, UnknownName
from harness.spec.suite import CorpusSpec

__all__ = ["TEMPLATES", "Renderer", "TokenSequence"]

BATCH = 256
CHAT_DATE: str = CorpusSpec.model_fields["chat_date"].default
FIRST_CHARACTERS = 'aZ1(#-*"`é中'


class Renderer:
    """Writes conversations the way one tokenizer's chat template does.

    A template named in the model's file wins; otherwise the tokenizer's own is used as it is,
    with the system prompt that it may insert (SmolLM2's does), because that is what the model
    was tuned on and what generation will use: its tokens are those of ``apply_chat_template``.
    A named template writes the BOS token first where the tokenizer has one. Text inside messages
    never becomes a special token.

    Attributes:
        tokenizer: the tokenizer, as it came.
        end_of_turn_id: the token that ends a reply; trained on, and stops generation.
        pad_id: for filling batches. It may equal ``end_of_turn_id``: loss follows the mask only.
        knows_system: whether the template writes the system messages of the data.
        chat_template: the jinja source in use, for libraries that want it on the tokenizer.
    """

    def __init__(self, tokenizer: Any, template: str | None = None, day: str = CHAT_DATE) -> None:
        """Take a fast transformers tokenizer, a template's name or None for its own, and a date.

        The ``day`` (YYYY-MM-DD) is what a template prints that asks for today's date.

        Raises:
            UnknownName: no template of that name.
            CorpusError: no template at all, or one whose masks cannot be exact.
        """
        self.tokenizer = tokenizer
        if not getattr(tokenizer, "is_fast", False):
            raise CorpusError("masks need a fast tokenizer", where=type(tokenizer).__name__)
        specials = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
        specials.update(tokenizer.all_special_tokens)
        self._special_ids = frozenset(tokenizer.convert_tokens_to_ids(sorted(specials)))
        longest_first = sorted(specials, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._framer = Framer(tokenizer, self._choose(template), self._special, day)
        self.chat_template = self._framer.template.source
        self.knows_system = self._framer.knows_system
        self.end_of_turn = self._framer.end_of_turn
        self.end_of_turn_id: int = tokenizer.convert_tokens_to_ids(self.end_of_turn)
        pad = tokenizer.pad_token_id
        self.pad_id: int = self.end_of_turn_id if pad is None else pad
        self._guard: Guard | None = None
        self._prefixed: set[str] = set()
        for first in FIRST_CHARACTERS:
            self._check_prefix(first)

    @property
    def own_tokens(self) -> dict[str, int]:
        """Ids of the tokens that are put in besides those of texts, by what they are for."""
        tokens = {"padding": self.pad_id, "the end of a turn": self.end_of_turn_id}
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        start = end if begin is None else begin
        return tokens if start is None else {**tokens, "the start of a text": start}

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that decides the tokens: tokenizer, special tokens, template."""
        parts = [
            self.tokenizer.backend_tokenizer.to_str(),
            self.chat_template,
            self.tokenizer.bos_token or "",
            self.end_of_turn,
        ]
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()

    def encode(self, conversation: Conversation) -> TokenSequence:
        """One conversation in tokens; see :meth:`encode_all`."""
        return next(self.encode_all([conversation]))

    def encode_all(self, conversations: Sequence[Conversation]) -> Iterator[TokenSequence]:
        """Conversations in tokens, in order, tokenised in batches.

        Raises:
            CorpusError: the template changes a text, or turns do not alternate.
        """
        for start in range(0, len(conversations), BATCH):
            part = conversations[start : start + BATCH]
            rendered = [self._whole(conversation) for conversation in part]
            for conversation, (ids, mask) in zip(part, self._tokenise(rendered), strict=True):
                yield TokenSequence(conversation.id, conversation.tree_id, ids, mask)

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The text up to and including the assistant's header; ``messages`` end with the user."""
        return self._prompt(messages).whole

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of :meth:`prompt_text`; a prefix of what :meth:`encode` gives."""
        ids, _ = next(self._tokenise([self._prompt(messages)]))
        return [int(token) for token in ids]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text alone, without template."""
        counts: list[int] = []
        for start in range(0, len(texts), BATCH):
            part = list(texts[start : start + BATCH])
            counts += map(len, self._bare().encode_batch_fast(part, add_special_tokens=False))
        return counts

    def _bare(self, *, specials_are_text: bool = False) -> Any:
        """The tokenizer's core, free of the settings that an earlier call left on it."""
        core = self.tokenizer.backend_tokenizer
        core.no_padding()
        core.no_truncation()
        core.encode_special_tokens = specials_are_text
        return core

    def _prompt(self, messages: Sequence[Message]) -> Rendered:
        _check_roles(messages, last="user", where="prompt")
        return self._framer.render(messages, "prompt", prompt=True)

    def _whole(self, conversation: Conversation) -> Rendered:
        _check_roles(conversation.messages, last="assistant", where=conversation.id)
        for message in conversation.messages:
            if message.role == "assistant":
                self._check_prefix(message.text)
        return self._framer.render(conversation.messages, conversation.id, prompt=False)

    def _choose(self, name: str | None) -> str:
        if name is None:
            own = self.tokenizer.chat_template
            if isinstance(own, dict):
                own = own.get("default")
            if isinstance(own, str):
                return own
            raise CorpusError(
                "the tokenizer has no chat template",
                where=self.tokenizer.name_or_path,
                expected=f"chat_template in the model's file, one of {', '.join(TEMPLATES)}",
            )
        if name not in TEMPLATES:
            raise UnknownName("chat template", name, TEMPLATES)
        return self._begun(self._ended(name))

    def _ended(self, name: str) -> str:
        """A named template that ends turns with a token the tokenizer has."""
        source, end = TEMPLATES[name], self.tokenizer.eos_token
        if name == "chatml" and self._special.fullmatch("<|im_end|>"):
            return source
        if not end:
            raise CorpusError("the tokenizer has no EOS token", where=self.tokenizer.name_or_path)
        return source.replace("<|im_end|>", end)

    def _begun(self, source: str) -> str:
        """A named template that writes the BOS token first, unless it begins so (ChatML may)."""
        begin = self.tokenizer.bos_token
        if not begin or (begin == "<|im_start|>" and "'<|im_start|>'" in source):
            return source
        return "{{ bos_token }}" + source

    def _check_prefix(self, reply: str) -> None:
        """Refuse a template whose prompt has other tokens than the conversation begins with.

        That is so where a tokenizer splits the header's last line breaks differently in front of
        text. Looked at once for every first character of a reply.

        Raises:
            CorpusError: naming the line of the template and the reply.
        """
        first = reply[:1]
        if first in self._prefixed:
            return
        user, said = Message("user", "a", ""), Message("assistant", reply[:16].strip(), "")
        prompt = self._framer.render([user], "prompt", prompt=True)
        whole = self._framer.render([user, said], "prompt", prompt=False)
        (before, _), (both, _) = self._tokenise([prompt, whole])
        if not np.array_equal(both[: len(before)], before):
            raise self._framer.not_a_prefix(f" in tokens where a reply starts with {said.text!r}")
        self._prefixed.add(first)

    def _tokenise(self, rendered: Sequence[Rendered]) -> Iterator[tuple[IntArray, BoolArray]]:
        wholes = [item.whole for item in rendered]
        encodings = self._bare().encode_batch(wholes, add_special_tokens=False)
        for item, encoding in zip(rendered, encodings, strict=True):
            if len(self._special.findall(item.whole)) == item.frame.specials:
                ids, bounds = np.array(encoding.ids, dtype=np.int32), encoding.offsets
                cores = _cores(item.whole, ids, bounds, self._special_ids)
                yield ids, self._mask(cores, item.starts, item.spans, item.where)
            else:
                yield self._tokenise_guarded(item)

    def _tokenise_guarded(self, item: Rendered) -> tuple[IntArray, BoolArray]:
        """As any other conversation, but special tokens inside messages stay text."""
        if self._guard is None:
            self._guard = Guard(self.tokenizer, self._special)
        text, places = self._guard.disguise(item)
        ids, offsets = self._guard.encode(text)
        cores = _cores(text, ids, offsets, self._special_ids)
        written = int(np.isin(ids, list(self._special_ids)).sum())
        if written != item.frame.specials:
            raise CorpusError(
                "a message holds a special token, and the tokenizer cannot write it as text",
                where=f"conversation {item.where}",
                hint="take the conversation out of the data, or change its text",
            )
        starts = [places[start] for start in item.starts]
        spans = [(places[start], places[end]) for start, end in item.spans]
        return ids, self._mask(cores, starts, spans, item.where)

    def _mask(
        self,
        bounds: IntArray,
        starts: Sequence[int],
        spans: Sequence[tuple[int, int]],
        where: str,
    ) -> BoolArray:
        """The tokens inside the spans.

        Raises:
            CorpusError: one token reaches over the border of a reply.
        """
        mask = np.zeros(len(bounds), dtype=np.bool_)
        borders = [*starts, *(end for _, end in spans)]
        for border in borders:
            if ((bounds[:, 0] < border) & (bounds[:, 1] > border)).any():
                raise self._framer.not_a_prefix(f" in tokens of conversation {where}")
        for start, end in spans:
            mask |= (bounds[:, 0] >= start) & (bounds[:, 1] <= end)
        return mask


def _check_roles(messages: Sequence[Message], *, last: str, where: str) -> None:
    roles = [message.role for message in messages]
    if roles[:1] == ["system"]:
        roles = roles[1:]
    wanted = ["assistant" if index % 2 else "user" for index in range(len(roles))]
    if not roles or roles != wanted or roles[-1] != last:
        raise CorpusError(
            f"turns are {', '.join(roles) or 'missing'}",
            where=f"conversation {where}",
            expected=f"user and assistant in turn, {last} last",
        )


def _cores(
    text: str, ids: IntArray, offsets: Sequence[tuple[int, int]], special: frozenset[int]
) -> IntArray:
    """[tokens, 2]: the characters of each token, without white space that a special one takes.

    Some special tokens take what stands beside them (Phi-3's role tokens do); where such a token
    belongs is decided by its own characters.
    """
    bounds = np.array(offsets, dtype=np.int32).reshape(-1, 2)
    for index in np.flatnonzero(np.isin(ids, list(special))):
        start, end = (int(place) for place in bounds[index])
        taken = text[start:end]
        bounds[index] = (
            start + len(taken) - len(taken.lstrip()),
            end - len(taken) + len(taken.rstrip()),
        )
    return bounds
