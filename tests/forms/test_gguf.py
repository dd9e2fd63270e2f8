"""GGUF files are written as llama.cpp lays them out, and transformers reads the right logits."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader

from harness.errors import UserError
from harness.forms.check import check_form
from harness.forms.gguf.families import FAMILIES, file_bytes, places
from harness.forms.gguf.read import read_weights
from harness.forms.gguf.types import (
    FILE_TYPES,
    NARROW,
    Type,
    check_library,
    encode,
    needs_library,
    tensor_type,
)
from harness.forms.gguf.vocabulary import read_vocabulary
from harness.forms.gguf.write import Speech, write_gguf
from harness.forms.make import merged
from harness.spec.form import parse_form
from tests.forms.tiny_results import logits, make_plan, make_result, slow_but, write_model

READABLE = ("llama", "qwen2", "phi3", "mistral", "qwen3")  # transformers reads no phi2
PLAIN = ("F32", "F16", "BF16", "Q8_0", "Q5_0", "Q4_0")


def load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_has_a_place_and_comes_back(family: str, tmp_path: Path) -> None:
    model, tokenizer = load(write_model(tmp_path / "m", family))
    path = tmp_path / "model.gguf"
    before = {name: value.clone() for name, value in model.state_dict().items()}
    write_gguf(path, model, Speech(tokenizer), "F32")
    for value in model.state_dict().values():
        value.zero_()
    read_weights(path, model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("quant", "family"),
    slow_but(
        [*((quant, "llama") for quant in PLAIN), *(("F32", family) for family in READABLE)],
        product(PLAIN, READABLE),
    ),
)
def test_transformers_reads_the_logits_of_the_quantized_tensors(
    family: str, quant: str, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    model, tokenizer = load(write_model(tmp_path / "m", family))
    exact = logits(model)
    write_gguf(tmp_path / "model.gguf", model, Speech(tokenizer), quant)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    ).eval()
    ours = logits(read_weights(tmp_path / "model.gguf", model))
    assert (logits(theirs) - ours).abs().max() <= 1e-3
    if quant == "F32":
        assert (ours - exact).abs().max() <= 1e-5
    else:
        assert (ours - exact).abs().max() > 1e-5, "a smaller type should have cost something"


def test_a_merged_run_is_written(tmp_path: Path) -> None:
    parts = make_result(tmp_path, make_plan(tmp_path)).parts
    model = merged(parts)
    exact = logits(model)
    write_gguf(tmp_path / "model.gguf", model, None, "Q8_0")
    assert (logits(read_weights(tmp_path / "model.gguf", model)) - exact).abs().max() < 0.5


def test_a_tied_head_is_stored_once(tmp_path: Path) -> None:
    tied, _ = load(write_model(tmp_path / "tied", "llama"))
    apart, _ = load(write_model(tmp_path / "apart", "llama", tie_word_embeddings=False))
    assert "output.weight" not in {place.tensor for place in places(tied)}
    assert "output.weight" in {place.tensor for place in places(apart)}


@pytest.mark.parametrize("quant", FILE_TYPES)
@pytest.mark.parametrize("family", ["llama", "phi"])
def test_the_bytes_of_a_file_are_known_from_shapes(family: str, quant: str, tmp_path: Path) -> None:
    """Rows of 64 and 96 take larger types than those that the file is named after."""
    from harness.deploy.size import stored_shapes

    if needs_library(quant):
        pytest.importorskip("xllamacpp", reason="llama.cpp's library is not installed")
    source = write_model(tmp_path / "m", family, intermediate_size=96)
    model, tokenizer = load(source)
    write_gguf(tmp_path / "model.gguf", model, Speech(tokenizer), quant)
    written = sum(int(tensor.n_bytes) for tensor in GGUFReader(tmp_path / "model.gguf").tensors)
    assert file_bytes(stored_shapes(source), model.config.to_dict(), quant) == written


def test_types_as_llama_cpp_mixes_them() -> None:
    def kind(name: str, shape: tuple[int, ...] = (64, 256), quant: str = "Q4_K_M") -> Any:
        return tensor_type(name, shape, quant, 16)

    assert kind("output_norm.weight", (256,)) == Type.F32
    assert kind("token_embd.weight") == Type.Q6_K
    assert kind("blk.5.attn_q.weight") == Type.Q4_K
    assert [kind(f"blk.{i}.ffn_down.weight").name for i in range(6)] == [
        "Q6_K", "Q6_K", "Q4_K", "Q4_K", "Q6_K", "Q4_K",
    ]  # fmt: skip
    assert kind("blk.5.attn_q.weight", (64, 96)) == NARROW[Type.Q4_K]
    assert kind("blk.5.attn_q.weight", (64, 40)) == Type.F16
    assert kind("token_embd.weight", quant="Q4_0") == Type.Q8_0


def test_k_types_need_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.forms.gguf import types

    monkeypatch.setattr(types, "_library", lambda: None)
    with pytest.raises(UserError, match="Q4_K_M is quantized by llama"):
        check_library("Q4_K_M")
    check_library("Q8_0")


@pytest.mark.parametrize("name", ["Q4_K", "Q5_K", "Q6_K"])
def test_k_types_round_as_their_bits_allow(name: str) -> None:
    import gguf
    import numpy as np

    pytest.importorskip("xllamacpp", reason="llama.cpp's library is not installed")
    values = np.random.default_rng(0).normal(size=(3, 512)).astype(np.float32)
    back = gguf.dequantize(encode(values, Type[name]), Type[name])
    worst = {"Q4_K": 0.35, "Q5_K": 0.17, "Q6_K": 0.12}[name]
    assert 0 < np.abs(back - values).max() < worst


def test_a_tokenizer_that_llama_cpp_would_read_differently_is_refused(tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers

    _, tokenizer = load(write_model(tmp_path / "m", "llama"))
    assert read_vocabulary(tokenizer, 260).split == "gpt-2"
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel()]
    )
    with pytest.raises(UserError, match="Punctuation, ByteLevel"):
        read_vocabulary(tokenizer, 260)


def test_a_vocabulary_is_filled_up_and_typed(tmp_path: Path) -> None:
    from gguf import TokenType

    _, tokenizer = load(write_model(tmp_path / "m", "llama"))
    found = read_vocabulary(tokenizer, 264)
    assert found.tokens[260:] == [f"[PAD{i}]" for i in range(260, 264)]
    assert found.types[260] == TokenType.UNUSED
    assert found.types[:3] == [TokenType.CONTROL] * 3
    assert found.merges == ["t h"]
    assert found.special == {"bos": 1, "eos": 2, "pad": 2}
    assert found.template == tokenizer.chat_template


def test_the_tokenizer_in_the_file_cuts_text_alike(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    model, tokenizer = load(write_model(tmp_path / "m", "llama"))
    write_gguf(tmp_path / "model.gguf", model, Speech(tokenizer), "F16")
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    for text in ("the thing", "<|im_start|>user\nth 12 3é中<|im_end|>", "  two  spaces"):
        assert theirs(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert theirs.chat_template == tokenizer.chat_template


def test_unknown_families_and_scalings_are_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    small = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=32, n_layer=1, n_head=2))
    with pytest.raises(UserError, match="no GGUF file can be written of a gpt2 model"):
        write_gguf(tmp_path / "x.gguf", small, None, "F16")
    yarn = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10_000.0,
            "original_max_position_embeddings": 64}  # fmt: skip
    model, _ = load(write_model(tmp_path / "m", "llama", rope_parameters=yarn))
    with pytest.raises(UserError, match="rope scaling yarn"):
        write_gguf(tmp_path / "x.gguf", model, None, "F16")


def test_a_scaling_that_llama_cpp_would_not_load_is_refused_when_planned(tmp_path: Path) -> None:
    """It knows divisors of the frequencies of a llama only, and loads no other file with them."""
    rope = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64}  # fmt: skip
    plan = make_plan(tmp_path)
    form = parse_form("gguf:Q8_0")
    for family, said in (("llama", None), ("qwen3", "of qwen3 here")):
        config = {**plan.model.config, "model_type": family, "rope_parameters": rope}
        changed = plan.model_copy(
            update={"model": plan.model.model_copy(update={"config": config}), "method": "full",
                    "adapter": None}
        )  # fmt: skip
        if said is None:
            check_form(changed, form)
            continue
        with pytest.raises(UserError, match=said):
            check_form(changed, form)
