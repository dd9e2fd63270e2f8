"""Texts that begin alike have the tokens that each has alone, with less work."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from harness.score.beginnings import cuts_locally, encode_sharing

STEM = "Which of these bones lies in the cranial cavity, and which one doesn't?\n" * 5
ENDS = ("A", " A", "\n\nA", "  B", "'ll", "'lless", "12", "1234", "é", "€5", "\t\n x", ".", "")
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
UNCUT_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
CUTS = {
    "gpt2": BYTES,
    "digits": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES]),
    "llama3": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), UNCUT_BYTES]
    ),
}


def trained(cut: Any, *, begins: bool) -> PreTrainedTokenizerFast:
    """A tokenizer trained on these texts."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = cut, decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([STEM, *ENDS], trainer)
    if begins:
        backend.post_processor = processors.TemplateProcessing(
            "<s> $A", special_tokens=[("<s>", 0)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="<|end|>")


class Counted:
    """Tokenises and counts the characters."""

    def __init__(self, tokenizer: Any, **settings: Any) -> None:
        self.characters, self._tokenizer, self._settings = 0, tokenizer, settings

    def __call__(self, texts: list[str]) -> list[list[int]]:
        self.characters += sum(map(len, texts))
        found: list[list[int]] = self._tokenizer(texts, **self._settings)["input_ids"]
        return found


def texts_that_part(anywhere: random.Random) -> list[str]:
    """Two stems that are cut anywhere, so that texts part inside of words and spaces too."""
    found = []
    for whole in (STEM, STEM.replace("cranial", "thoracic")):
        stem = whole[: len(whole) - anywhere.randrange(60)]
        found += [stem + end for end in ENDS]
    return [*found, "short", *found[:3]]


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("name", CUTS)
def test_tokens_are_those_of_each_text_alone(name: str, begins: bool) -> None:
    tokenizer = trained(CUTS[name], begins=begins)
    assert cuts_locally(tokenizer)
    for seed in range(30):
        texts = texts_that_part(random.Random(seed))
        whole, rest = Counted(tokenizer), Counted(tokenizer, add_special_tokens=False)
        found = encode_sharing(tokenizer, texts, whole, rest)
        assert found == Counted(tokenizer)(texts)
        assert whole.characters + rest.characters < 0.6 * sum(map(len, texts))


def test_texts_with_special_tokens_are_tokenised_whole() -> None:
    tokenizer = trained(CUTS["gpt2"], begins=False)
    texts = [f"{STEM}{end}<|end|> more" for end in ENDS]
    whole, rest = Counted(tokenizer), Counted(tokenizer)
    assert encode_sharing(tokenizer, texts, whole, rest) == Counted(tokenizer)(texts)
    assert rest.characters == 0


def test_a_special_token_that_only_one_text_completes_is_seen() -> None:
    """It begins in what is common and is complete in a text that is not tried whole."""
    tokenizer = trained(CUTS["gpt2"], begins=False)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|reserved_special_token_7|>"]})
    ends = ("1|> a", "3 b", "7|> c", "8 longest of them all", "9 d")
    texts = [f"{STEM}<|reserved_special_token_{end}" for end in ends]
    whole, rest = Counted(tokenizer), Counted(tokenizer)
    assert encode_sharing(tokenizer, texts, whole, rest) == Counted(tokenizer)(texts)
    assert rest.characters == 0


@pytest.mark.parametrize(
    ("pattern", "local"),
    [
        (LLAMA3, True),
        (r"[^\w\s]|[!\"#$%\[\\\]^_]+[A-Za-z]+|\$|\^|\p{N}{1,3}|\s+(?!\S)", True),
        (r"\d{1,3}(?=(?:\d{3})*\b)", False),
        (r"\d{1,3}(?!\d)", False),
        (r"(?<=a)b", False),
        (r"\bb", False),
        (r"^b", False),
        (r"\d+$|\d", False),
    ],
)
def test_patterns_that_look_around_do_not_cut_locally(pattern: str, local: bool) -> None:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer = trained(pre_tokenizers.Sequence([split, UNCUT_BYTES]), begins=False)
    assert cuts_locally(tokenizer) == local


def test_digits_that_are_grouped_from_the_right_are_those_of_each_text() -> None:
    """How they are grouped is decided by the end of the number, however far that is."""
    split = pre_tokenizers.Split(Regex(r"\d{1,3}(?=(?:\d{3})*\b)"), "isolated")
    tokenizer = trained(pre_tokenizers.Sequence([split, UNCUT_BYTES]), begins=False)
    stem = STEM + "12345678901234"
    texts = [stem + end for end in ("111 a", "222 b", "33 c", "44 d", "999999 z")]
    whole, rest = Counted(tokenizer), Counted(tokenizer)
    assert encode_sharing(tokenizer, texts, whole, rest) == Counted(tokenizer)(texts)


def test_tokenizers_that_look_at_whole_texts_do_so() -> None:
    marked = trained(pre_tokenizers.Metaspace(), begins=False)
    lowered = trained(BYTES, begins=False)
    lowered.backend_tokenizer.normalizer = normalizers.Lowercase()
    behind = trained(
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"(?<=a)b"), "isolated"), BYTES]),
        begins=False,
    )
    for tokenizer in (marked, lowered, behind):
        assert not cuts_locally(tokenizer)
        texts = [STEM + end for end in ENDS]
        whole, rest = Counted(tokenizer), Counted(tokenizer)
        assert encode_sharing(tokenizer, texts, whole, rest) == whole(texts)
        assert rest.characters == 0
