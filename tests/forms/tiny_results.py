"""Tiny results: finished runs of tiny models of several families, adapters with random weights."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.forms.make import Parts
from harness.records.record import RunRecord
from harness.records.store import RunFolder, StoredRun
from harness.spec.plan import Plan
from harness.spec.request import Request, resolve
from harness.spec.storage import write_json
from tests.runs.small_run import CPU, SUITE, tree
from tests.weights.tiny_llama import TEMPLATE, vocabulary

WORDS = len(vocabulary())
SIZES: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {**SIZES, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen2": {**SIZES, "num_key_value_heads": 2},
    "phi3": {**SIZES, "num_key_value_heads": 2, "pad_token_id": 2, "sliding_window": 128,
             "tie_word_embeddings": False},
    "mistral": {**SIZES, "num_key_value_heads": 2, "sliding_window": 128},
    "qwen3": {**SIZES, "num_key_value_heads": 2, "head_dim": 128, "tie_word_embeddings": True},
    "phi": {**SIZES, "partial_rotary_factor": 0.5},
}  # fmt: skip


def slow_but(first: Iterable[Any], values: Iterable[Any]) -> list[Any]:
    """Test parameters of which only ``first`` are for every day; the others are marked slow."""
    daily = list(first)
    return [v if v in daily else pytest.param(*_row(v), marks=pytest.mark.slow) for v in values]


def _row(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def write_tokenizer(folder: Path) -> None:
    """Bytes, one merge and three special tokens; cuts text as GPT-2 does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = vocabulary()
    bpe = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, [("t", "h")]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=tokens[1], eos_token=tokens[2], pad_token=tokens[2]
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [tokens[0]]})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)


def write_model(folder: Path, family: str, scale: float = 0.15, **changes: Any) -> Path:
    """A random model of a family with that tokenizer; biases and norms are random too."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    write_tokenizer(folder)
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**FAMILIES[family], **changes})
    model = AutoModelForCausalLM.from_config(config)
    for name, weight in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(weight, std=0.05)
        elif weight.dim() == 1:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
        else:
            torch.nn.init.normal_(weight, std=scale)
    model.save_pretrained(folder)
    return folder


def make_plan(
    folder: Path, family: str = "llama", *settings: str, variant: str = "lora_bf16", **changes: Any
) -> Plan:
    """The plan of a variant on a random model of a family, all files below ``folder``."""
    weights = write_model(folder / "weights", family, **changes)
    config = {"model_type": family, **FAMILIES[family], **changes}
    model = folder / f"tiny_{family}.toml"
    model.write_text(
        f'description = "tiny"\nlicense = "Apache-2.0"\n[source]\nkind = "folder"\n'
        f'path = "{weights}"\n[config]\n'
        + "".join(f"{key} = {json.dumps(value)}\n" for key, value in config.items())
    )
    corpus = folder / "trees.jsonl"
    corpus.write_text("".join(json.dumps(tree(index)) + "\n" for index in range(24)))
    suite = folder / "tiny.toml"
    suite.write_text(SUITE.format(model=model, corpus=corpus, steps=2))
    if variant.startswith(("lora", "qlora")) and not any("adapter.type" in s for s in settings):
        settings = ("adapter.r=4", *settings)
    (plan,) = resolve(Request((variant,), str(suite), settings=settings, seeds=(0,)), CPU)
    return plan


@dataclass(frozen=True)
class Tiny:
    """A finished run, and the logits that its adapter gives as it was trained."""

    run: StoredRun
    parts: Parts
    root: Path


def make_result(folder: Path, plan: Plan, change: float = 0.05) -> Tiny:
    """A run folder as training leaves it; the adapter's weights are random, not zero."""
    source = folder / "weights"
    root = folder / "reports" / "runs"
    place = RunFolder(root / plan.run_name)
    if plan.trains:
        _save_adapter(plan, source, place.adapter, change)
    record = RunRecord(
        plan=plan,
        fingerprint=plan.fingerprint,
        status="ok",
        started_at="2026-01-01T00:00:00Z",
        seconds=1.0,
        environment=None,
    )
    write_json(place.record, record)
    return Tiny(StoredRun(place, record), Parts(plan, source, place.adapter), root)


def _save_adapter(plan: Plan, source: Path, target: Path, change: float) -> None:
    import torch

    from harness.weights.adapter import attach_adapter, save_adapter
    from harness.weights.load import load_base

    rows = [{"input_ids": _row_of(n), "labels": _row_of(n), "attention_mask": _row_of(n) * 0 + 1}
            for n in range(4)]  # fmt: skip
    model = attach_adapter(load_base(plan, source), plan, plan.budget.steps, rows)
    torch.manual_seed(1)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data += torch.randn_like(weight) * change
    save_adapter(model, target)


def _row_of(number: int) -> Any:
    """One row of tokens, for adapters that start from training rows."""
    import torch

    return torch.arange(3, 43)[None] * (number + 5) % WORDS


def logits(model: Any, length: int = 24) -> Any:
    """Float32 logits [length, words] of one fixed row of tokens, the first ones among them."""
    import torch

    tokens = torch.arange(3, 3 + length)[None] * 7 % WORDS
    tokens[0, :4] = torch.arange(4)  # what a method may train by their numbers
    with torch.inference_mode():
        return model(input_ids=tokens.to(model.device)).logits[0].float().cpu()
