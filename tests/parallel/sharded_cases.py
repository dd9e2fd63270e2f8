"""Sharded cases: a tiny base, and what it gives, whole or spread over devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from harness.quantize.scheme import Target
from harness.score.likelihood import Query
from tests.planned import planned

VARIANTS = ("lora_bf16", "qlora_nf4", "qlora_nf4_dq", "qlora_fp4")
LAYERS = 4
BATCH_TOKENS = 64
SHAPE = {
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def base() -> Any:
    """The same for everyone, in float32."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()


def full() -> Any:
    """A model of which every weight is trained; its sizes do not divide by two."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**SHAPE, "vocab_size": 101})).eval()


def target(variant: str, *, storage: bool = False) -> Target:
    """What the base becomes; ``storage``: packed weights as numbers of the compute dtype."""
    kept = torch.float32 if storage else None
    return Target(planned(variant).quantization, torch.float32, "cpu", kept)


def logits(model: Any) -> torch.Tensor:
    """As scores are taken."""
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=torch.arange(20)[None]).logits
    return found


def slopes(model: Any) -> torch.Tensor:
    """The gradient of the inputs, through every layer."""
    inputs = model.get_input_embeddings()(torch.arange(20)[None]).detach().requires_grad_()
    model(inputs_embeds=inputs, use_cache=False).logits.logsumexp(-1).mean().backward()
    assert inputs.grad is not None
    return inputs.grad


def queries() -> list[Query]:
    """Preambles of which each is gone on with in several ways, of very unlike lengths."""
    rng = np.random.default_rng(1)
    found = []
    for size in (60, 9, 30):
        preamble = rng.integers(0, 100, size)
        for _ in range(7):
            tokens = np.concatenate([preamble, rng.integers(0, 100, int(rng.integers(2, 20)))])
            found.append(Query(tokens, np.arange(len(tokens) - 2, len(tokens))))
    return found
