"""Tiny real models, and plans to score them under."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from harness.corpus.corpus import Corpus, build_corpus
from harness.corpus.render import Renderer
from harness.records.events import Silence
from harness.score.subject import Subject
from harness.spec.device import Device
from harness.spec.model import Model, RandomSource
from harness.spec.plan import Plan
from harness.spec.planning import make_plan
from harness.spec.suite import Budget, CorpusSpec, ScoreSpec, Suite
from harness.spec.variant import Adapter, Quantization, Variant

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
WORDS = 600
SHAPE = {
    "model_type": "llama",
    "vocab_size": WORDS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """See `make_tokenizer`."""
    return make_tokenizer()


def make_tokenizer() -> Any:
    """A byte-level BPE tokenizer trained on the bundled corpus, with ChatML's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from harness.corpus.templates import TEMPLATES

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = build_corpus(CorpusSpec())
    inner.train_from_iterator((m.text for c in corpus.train for m in c.messages), trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=2048,
    )
    made.chat_template = TEMPLATES["chatml"]
    return made


def make_model(seed: int = 0, **shape: Any) -> Any:
    """A random Llama; its weights are large enough that its answers differ."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    config = AutoConfig.for_model(**{**SHAPE, **shape})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return model.eval()


def fast_engine(model: Any, tokenizer: Any) -> Any:
    """The fast engine over a model."""
    from harness.score.engine import FastLM
    from harness.score.likelihood import Likelihood

    return FastLM(model, tokenizer, Likelihood(model, 4096, Silence()))


@pytest.fixture
def model() -> Any:
    return make_model()


@pytest.fixture(scope="session")
def model_folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a folder that the lm_eval command line can load."""
    folder = tmp_path_factory.mktemp("model")
    make_model().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return build_corpus(CorpusSpec())


def make_score_plan(score: ScoreSpec, quantization: Quantization | None = None) -> Plan:
    variant = Variant(
        name="lora",
        description="",
        adapter=Adapter(type="LORA", r=4, target_modules=["q_proj", "v_proj"]),
        quantization=quantization or Quantization(),
    )
    suite = Suite(name="tiny", description="", model="tiny", budget=Budget(steps=1), score=score)
    described = Model(
        name="tiny",
        description="",
        license="",
        source=RandomSource(kind="random", tokenizer="tiny"),
        config=SHAPE,
    )
    device = Device(kind="cpu", name="cpu", bfloat16=False, threads=1)
    return make_plan(variant, suite, described, 0, device)


@pytest.fixture
def subject(model: Any, tokenizer: Any, corpus: Corpus) -> Any:
    """Builds a Subject for a ScoreSpec."""

    def build(score: ScoreSpec, scored: Any = model) -> Subject:
        return Subject(
            scored, tokenizer, Renderer(tokenizer, "chatml"), corpus, make_score_plan(score)
        )

    return build


@pytest.fixture
def silence() -> Silence:
    return Silence()
