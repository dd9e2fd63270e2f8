"""Vocabulary: a transformers tokenizer as the fields that llama.cpp reads it from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from gguf import TokenType

from harness.errors import UserError

# How a byte-level tokenizer cuts text before it merges, by the pattern in its own file, and the
# name that llama.cpp has for it.
SPLITS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "llama-bpe",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "qwen2",
}


@dataclass(frozen=True)
class Vocabulary:
    """What llama.cpp needs to know of a tokenizer."""

    model: str
    split: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    scores: list[float] | None
    special: dict[str, int]
    adds_bos: bool
    template: str | None = None
    flags: dict[str, bool] = field(default_factory=dict)


def read_vocabulary(tokenizer: Any, size: int) -> Vocabulary:
    """The vocabulary of a fast tokenizer, filled up to the ``size`` of the embedding.

    Raises:
        UserError: a tokenizer that llama.cpp has no name for; a wrong name would cut text wrongly
            and nobody would notice.
    """
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    if core["model"]["type"] != "BPE":
        raise _unknown(f"a {core['model']['type']} tokenizer")
    byte_level = _has(core, "ByteLevel")
    tokens, types = _tokens(tokenizer, core, size)
    merges = [_merge(item) for item in core["model"]["merges"]]
    template = tokenizer.chat_template
    return Vocabulary(
        model="gpt2" if byte_level else "llama",
        split=_split(core) if byte_level else "default",
        tokens=tokens,
        types=types if byte_level else _with_bytes(tokens, types, tokenizer),
        merges=merges if byte_level else [],
        scores=None if byte_level else _scores(tokens, merges),
        special=_special(tokenizer),
        adds_bos=_adds_bos(tokenizer),
        template=template if isinstance(template, str) else None,
        flags={} if byte_level else {"space_prefix": _prefixes_space(core)},
    )


def _tokens(tokenizer: Any, core: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    tokens = [f"[PAD{index}]" for index in range(size)]
    types = [int(TokenType.UNUSED)] * size
    for token, index in core["model"]["vocab"].items():
        tokens[index], types[index] = token, int(TokenType.NORMAL)
    for index, added in tokenizer.added_tokens_decoder.items():
        if index < size:
            kind = TokenType.CONTROL if added.special else TokenType.USER_DEFINED
            tokens[index], types[index] = added.content, int(kind)
    return tokens, types


def _with_bytes(tokens: list[str], types: list[int], tokenizer: Any) -> list[int]:
    """Types of a sentencepiece vocabulary: raw bytes and the unknown token have their own."""
    found = list(types)
    for index, token in enumerate(tokens):
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            found[index] = int(TokenType.BYTE)
    if tokenizer.unk_token_id is not None:
        found[tokenizer.unk_token_id] = int(TokenType.UNKNOWN)
    return found


def _scores(tokens: list[str], merges: list[str]) -> list[float]:
    """Scores that make sentencepiece's merging take the pairs in the order of ``merges``."""
    rank: dict[str, int] = {}
    for index, merge in enumerate(merges):
        rank.setdefault(merge.replace(" ", ""), index)
    return [-float(rank.get(token, len(merges))) for token in tokens]


def _merge(item: str | list[str]) -> str:
    return item if isinstance(item, str) else " ".join(item)


def _special(tokenizer: Any) -> dict[str, int]:
    found = {
        name: getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "unk", "pad")
    }
    return {name: index for name, index in found.items() if index is not None}


def _adds_bos(tokenizer: Any) -> bool:
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def _parts(section: dict[str, Any] | None, inside: str) -> list[dict[str, Any]]:
    if section is None:
        return []
    return list(section.get(inside, [])) if section["type"] == "Sequence" else [section]


def _has(core: dict[str, Any], kind: str) -> bool:
    parts = _parts(core["pre_tokenizer"], "pretokenizers") + _parts(core["decoder"], "decoders")
    return any(part["type"] == kind for part in parts)


def _prefixes_space(core: dict[str, Any]) -> bool:
    parts = _parts(core["normalizer"], "normalizers") + _parts(
        core["pre_tokenizer"], "pretokenizers"
    )
    return any(
        part["type"] == "Prepend"
        or (part["type"] == "Metaspace" and part.get("prepend_scheme", "always") != "never")
        for part in parts
    )


def _split(core: dict[str, Any]) -> str:
    """llama.cpp's name for the way a byte-level tokenizer cuts text."""
    parts = _parts(core["pre_tokenizer"], "pretokenizers")
    kinds = [part["type"] for part in parts]
    patterns = [part["pattern"].get("Regex") for part in parts if part["type"] == "Split"]
    if len(patterns) == 1 and patterns[0] in SPLITS:
        return SPLITS[patterns[0]]
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits"):
        return "smollm"
    raise _unknown(f"a tokenizer that cuts text by {', '.join(kinds)}: {patterns}")


def _unknown(what: str) -> UserError:
    return UserError(
        f"llama.cpp's name for {what} is not known here",
        expected="byte-level BPE as in GPT-2, SmolLM, Llama 3 or Qwen 2, or sentencepiece BPE",
        hint="export the form merged and convert that folder with llama.cpp's own script",
    )
