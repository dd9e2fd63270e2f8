"""llama.cpp reads a GGUF file written here: its logits, its rotary factors, its vocabulary.

On a CPU llama.cpp rounds the inputs of products with quantized weights to 8 bits. So its answers
are compared in two ways: from a file of the expanded tensors in float32, and from the quantized
file itself with a model that rounds its inputs by llama.cpp's own routine.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from harness.forms.gguf.families import FAMILIES
from harness.forms.gguf.read import read_weights
from harness.forms.gguf.write import Speech, write_gguf
from tests.forms.llama_cpp import ROUNDED, LlamaCpp, expanded, inputs_rounded
from tests.forms.test_gguf import load
from tests.forms.tiny_results import slow_but, write_model

pytest.importorskip("xllamacpp", reason="llama.cpp's library is not installed")

WIDE: dict[str, Any] = {"scale": 0.05, "hidden_size": 256, "intermediate_size": 512}  # K types
QUANTS = ("Q8_0", "Q6_K", "Q5_K_M", "Q5_0", "Q4_K_M", "Q4_0")
TEXT = "Where do the otters sleep?"
WORDS = ("Wh", "ot", "sl", "12", "the", " a b", "xyz")
TABLE = 2e-3  # Phi's: llama.cpp looks GELU up in a table of 16 bits
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64}  # fmt: skip


@torch.inference_mode()
def log_probs(model: Any, ids: list[int]) -> Any:
    return model(input_ids=torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)


def furthest(found: Any, expected: Any) -> float:
    assert expected.std() > 0.3, "so flat that nothing is shown"
    return float((found - expected).abs().max())


@pytest.mark.parametrize(
    ("quant", "family"),
    slow_but(
        [("Q4_K_M", "llama"), *(("Q8_0", family) for family in FAMILIES)],
        product(QUANTS, FAMILIES),
    ),
)
def test_the_expanded_tensors_answer_alike(quant: str, family: str, tmp_path: Path) -> None:
    """Both expand every tensor to the same bits, and both give the same logits for these."""
    model, tokenizer = load(write_model(tmp_path / "m", family, **WIDE))
    exact = log_probs(model, tokenizer(TEXT)["input_ids"])
    small, plain = tmp_path / "small.gguf", tmp_path / "plain.gguf"
    write_gguf(small, model, Speech(tokenizer), quant)
    quantized = [t for t in gguf.GGUFReader(small).tensors if t.tensor_type.name in ROUNDED]
    assert len(quantized) >= 9
    for tensor in quantized:
        ours = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert (ours.ravel() == expanded(tensor)).all(), tensor.name
    write_gguf(plain, read_weights(small, model), Speech(tokenizer), "F32")
    ours = log_probs(model, tokenizer(TEXT)["input_ids"])
    bound = TABLE if family == "phi" else 1e-3
    assert furthest(LlamaCpp(plain).log_probs(TEXT), ours) <= bound
    assert furthest(exact, ours) > 2 * bound, "fewer bits should have cost something"


@pytest.mark.parametrize(
    ("quant", "family"),
    slow_but(
        [("Q4_K_M", "llama"), ("Q8_0", "phi3")],
        product(QUANTS, [family for family in FAMILIES if family != "phi"]),
    ),
)
def test_the_quantized_file_answers_as_its_tensors_do(
    quant: str, family: str, tmp_path: Path
) -> None:
    """Few tokens, and most of several prompts: one input that falls on the other side of a
    rounding step by the last bit of a sum moves everything after it by about 0.02."""
    model, tokenizer = load(write_model(tmp_path / "m", family, **WIDE))
    path = tmp_path / "model.gguf"
    write_gguf(path, model, Speech(tokenizer), quant)
    theirs, model = LlamaCpp(path), read_weights(path, model)
    plain, rounding = [], []
    for text in WORDS:
        ids = tokenizer(text)["input_ids"]
        found = theirs.log_probs(text)
        plain.append(furthest(found, log_probs(model, ids)))
        with inputs_rounded(model, path):
            rounding.append(furthest(found, log_probs(model, ids)))
    assert sorted(rounding)[len(WORDS) // 2] <= 1e-3
    assert max(rounding) <= 0.1
    assert min(plain) > 1e-3, "then llama.cpp no longer rounds, and this test is for nothing"


@pytest.mark.parametrize(
    ("family", "rope"),
    slow_but(
        [("llama", LLAMA3)],
        [
            ("llama", LLAMA3),
            ("llama", {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}),
        ],
    ),
)
def test_scaled_rotary_positions_are_those_of_transformers(
    family: str, rope: dict[str, Any], tmp_path: Path
) -> None:
    """Past the original context, where the scaling matters."""
    changes = {**WIDE, "head_dim": 64, "rope_parameters": rope}
    model, tokenizer = load(write_model(tmp_path / "m", family, **changes))
    ids = tokenizer(TEXT * 6)["input_ids"]
    assert len(ids) > 2 * LLAMA3["original_max_position_embeddings"]  # type: ignore[operator]
    expected = log_probs(model, ids)
    path = tmp_path / "model.gguf"
    write_gguf(path, model, Speech(tokenizer), "F32")
    assert furthest(LlamaCpp(path).log_probs(ids), expected) <= 1e-3
    plain = {**changes, "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}
    unscaled, _ = load(write_model(tmp_path / "plain", family, **plain))
    assert furthest(log_probs(unscaled, ids), expected) > 1e-2, "the scaling changes nothing"


def sentencepiece(*, as_llama: bool) -> Any:
    """A tokenizer of pieces with ▁ for a blank and of raw bytes.

    As Llama 2 has it, with a blank and a BOS token before each text, or without both.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.normalizer = normalizers.Replace(" ", "▁")
    if as_llama:
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), core.normalizer])
        core.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    raw = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=460, special_tokens=["<unk>", "<s>", "</s>", *raw], show_progress=False,
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz▁.?"),
    )  # fmt: skip
    core.train_from_iterator([Path(__file__).read_text(encoding="utf-8")] * 2, trainer)
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    core.add_special_tokens([AddedToken("<|user|>", normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


@pytest.mark.parametrize("as_llama", [True, False])
def test_a_sentencepiece_vocabulary_cuts_text_alike(as_llama: bool, tmp_path: Path) -> None:
    words = 480  # more rows than tokens, as many models have
    model, _ = load(write_model(tmp_path / "m", "llama", vocab_size=words))
    tokenizer = sentencepiece(as_llama=as_llama)
    path = tmp_path / "model.gguf"
    write_gguf(path, model, Speech(tokenizer), "F32")
    theirs = LlamaCpp(path)
    texts = (
        "Where do the otters sleep?",
        "  two  blanks and a tab\t, then\n\na line",
        "é, 中 and 🦦: bytes",
        "assertion of the quantized vocabulary",
        "<|user|>the model<|user|> the model</s>",
        "▁▁ literal ▁",
    )
    for text in texts:
        assert theirs.tokens(text) == tokenizer(text)["input_ids"], text
    ids = tokenizer(texts[0])["input_ids"]
    assert furthest(theirs.log_probs(texts[0]), log_probs(model, ids)) <= 1e-3
