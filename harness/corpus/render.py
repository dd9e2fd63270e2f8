"""Renderer: conversations become token sequences with a loss mask exact to the token."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.corpus.conversation import Conversation, Message
from harness.corpus.frames import Framer, Rendered
from harness.corpus.templates import TEMPLATES
from harness.errors import CorpusError, UnknownName

__all__ = ["TEMPLATES", "Renderer", "TokenSequence"]

IntArray = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]
BATCH = 256
FIRST_CHARACTERS = 'aZ1(#-*"`é中'


@dataclass(frozen=True, slots=True, eq=False)
class TokenSequence:
    """One conversation in tokens.

    ``input_ids`` [tokens] int32; ``loss_mask`` [tokens] bool, true on the tokens of assistant
    texts and of the end-of-turn token after each.
    """

    conversation_id: str
    tree_id: str
    input_ids: IntArray
    loss_mask: BoolArray


class Renderer:
    """Writes conversations the way one tokenizer's chat template does.

    A template named in the model's file wins; otherwise the tokenizer's own is used as it is,
    with the system prompt that it may insert (SmolLM2's does), because that is what the model
    was tuned on and what generation will use. A tokenizer that has a BOS token gets exactly one
    at the start, also where its template writes none. Text inside messages never becomes a
    special token.

    Attributes:
        tokenizer: the tokenizer, as it came.
        end_of_turn_id: the token that ends a reply; trained on, and stops generation.
        pad_id: for filling batches. It may equal ``end_of_turn_id``: loss follows the mask only.
        chat_template: the jinja source in use, for libraries that want it on the tokenizer.
    """

    def __init__(self, tokenizer: Any, template: str | None = None) -> None:
        """Take a fast transformers tokenizer and the name of a template, or None for its own.

        Raises:
            UnknownName: no template of that name.
            CorpusError: no template at all, or one whose masks cannot be exact.
        """
        self.tokenizer = tokenizer
        if not getattr(tokenizer, "is_fast", False):
            raise CorpusError("masks need a fast tokenizer", where=type(tokenizer).__name__)
        specials = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
        specials.update(tokenizer.all_special_tokens)
        longest_first = sorted(specials, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._framer = Framer(tokenizer, self._choose(template), self._special)
        self.chat_template = self._framer.source
        self.end_of_turn = self._framer.end_of_turn
        self.end_of_turn_id: int = tokenizer.convert_tokens_to_ids(self.end_of_turn)
        pad = tokenizer.pad_token_id
        self.pad_id: int = self.end_of_turn_id if pad is None else pad
        self._apart = not all(self._prompt_is_prefix(first) for first in FIRST_CHARACTERS)

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
            rendered = [self._framer.render(_turns(c), c.id, prompt=False) for c in part]
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
        return self._framer.render([m.text for m in messages], "prompt", prompt=True)

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
        source, end = TEMPLATES[name], self.tokenizer.eos_token
        if name == "chatml" and self._special.fullmatch("<|im_end|>"):
            return source
        if not end:
            raise CorpusError("the tokenizer has no EOS token", where=self.tokenizer.name_or_path)
        return source.replace("<|im_end|>", end)

    def _prompt_is_prefix(self, reply: str) -> bool:
        """Whether the prompt's tokens are those that the whole conversation begins with.

        They are not where a tokenizer splits the header's last line breaks differently in front
        of text; then every reply is tokenised apart from its prompt, as in generation.
        """
        prompt = self._framer.raw(["a"], prompt=True)
        whole = self._framer.raw(["a", reply], prompt=False)
        both = self.tokenizer([prompt, whole], add_special_tokens=False)["input_ids"]
        return bool(both[1][: len(both[0])] == both[0])

    def _tokenise(self, rendered: Sequence[Rendered]) -> Iterator[tuple[IntArray, BoolArray]]:
        wholes = [item.whole for item in rendered]
        encodings = self._bare().encode_batch(wholes, add_special_tokens=False)
        for item, encoding in zip(rendered, encodings, strict=True):
            literal = self._apart or any(map(self._special.search, item.texts))
            masked = None if literal else _mask(encoding.offsets, item.spans)
            if masked is None:
                yield self._tokenise_apart(item)
            else:
                yield np.array(encoding.ids, dtype=np.int32), masked

    def _tokenise_apart(self, item: Rendered) -> tuple[IntArray, BoolArray]:
        """Piece by piece, so that special tokens inside messages stay text."""
        ids: list[int] = []
        mask: list[bool] = []
        core = self._bare(specials_are_text=True)
        for text, special, trained in item.pieces(self._special):
            if special:
                new = [self.tokenizer.convert_tokens_to_ids(text)]
            else:
                new = core.encode(text, add_special_tokens=False).ids
            ids += new
            mask += [trained] * len(new)
        self._bare()
        return np.array(ids, dtype=np.int32), np.array(mask, dtype=np.bool_)


def _turns(conversation: Conversation) -> list[str]:
    _check_roles(conversation.messages, last="assistant", where=conversation.id)
    return [message.text for message in conversation.messages]


def _check_roles(messages: Sequence[Message], *, last: str, where: str) -> None:
    roles = [message.role for message in messages]
    wanted = ["assistant" if index % 2 else "user" for index in range(len(roles))]
    if not roles or roles != wanted or roles[-1] != last:
        raise CorpusError(
            f"turns are {', '.join(roles) or 'missing'}",
            where=f"conversation {where}",
            expected=f"user and assistant in turn, {last} last",
        )


def _mask(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> BoolArray | None:
    """Tokens inside the spans; None where one token reaches over a span's border."""
    bounds = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    mask = np.zeros(len(bounds), dtype=np.bool_)
    for start, end in spans:
        first = int(np.searchsorted(bounds[:, 1], start, side="right"))
        last = int(np.searchsorted(bounds[:, 0], end, side="left"))
        if bounds[first, 0] < start or bounds[last - 1, 1] > end:
            return None
        mask[first:last] = True
    return mask
