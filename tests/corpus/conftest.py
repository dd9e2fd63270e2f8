"""Tokenizers and real files for the corpus room."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.cache import cache_folder
from harness.spec.plan_digests import SAMPLE

USERS_CACHE = cache_folder()  # the tests have one of their own, from the first test on
SMOLLM2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def sample_texts() -> list[str]:
    """Real text to train tiny tokenizers on."""
    texts = []
    for line in SAMPLE.read_text(encoding="utf-8").splitlines()[:30]:
        stack = [json.loads(line)["prompt"]]
        while stack:
            node = stack.pop()
            texts.append(node["text"])
            stack += node["replies"]
    return texts


def train_bpe(pre_tokenizer: Any, decoder: Any, specials: list[str], alphabet: list[str]) -> Any:
    """A BPE tokenizer of 3,000 words."""
    from tokenizers import Tokenizer, models, trainers

    core = Tokenizer(models.BPE(byte_fallback=not alphabet, unk_token="<unk>"))
    core.pre_tokenizer, core.decoder = pre_tokenizer, decoder
    trainer = trainers.BpeTrainer(
        vocab_size=3000, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(sample_texts(), trainer)
    return core


@pytest.fixture(scope="session")
def byte_level() -> Callable[..., Any]:
    """Makes byte-level tokenizers, as GPT-2's, Phi-2's and SmolLM2's are, with other specials."""
    from tokenizers import decoders, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<pad>"]
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core = train_bpe(
        splitter, decoders.ByteLevel(), specials, pre_tokenizers.ByteLevel.alphabet()
    ).to_str()

    def make(**options: Any) -> Any:
        from tokenizers import Tokenizer

        return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(core), **options)

    return make


@pytest.fixture(scope="session")
def chatml_tokenizer(byte_level: Callable[..., Any]) -> Any:
    """Like SmolLM2's: BOS opens every turn, EOS ends every turn and is the pad token too."""
    tokenizer = byte_level(bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>")
    tokenizer.chat_template = SMOLLM2_TEMPLATE
    return tokenizer


@pytest.fixture(scope="session")
def base_tokenizer(byte_level: Callable[..., Any]) -> Any:
    """Like a base model's: BOS and EOS, no pad token, no template."""
    return byte_level(bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def metaspace_tokenizer() -> Any:
    """Like Llama 2's: spaces are letters, and one goes in front of every text."""
    from tokenizers import decoders, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted({letter for text in sample_texts() for letter in text})
    # Llama 2's words hold no line breaks, so that these are tokens of their own.
    lines = pre_tokenizers.Split("\n", "isolated")
    core = train_bpe(
        pre_tokenizers.Sequence([lines, pre_tokenizers.Metaspace(prepend_scheme="first")]),
        decoders.Metaspace(prepend_scheme="first"),
        ["<unk>", "<s>", "</s>"],
        alphabet,
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="session")
def smollm2_tokenizer() -> Any:
    """SmolLM2's own tokenizer, where the model was fetched before."""
    from transformers import AutoTokenizer

    found = sorted((USERS_CACHE / "models").glob("smollm2_135m_instruct-*/tokenizer.json"))
    if not found:
        pytest.skip("SmolLM2 is not in the cache; `harness run` puts it there")
    return AutoTokenizer.from_pretrained(found[0].parent)


@pytest.fixture(scope="session")
def oasst(shared_data: Path) -> Path:
    """Folder with the real OASST files."""
    return shared_data / "oasst"
