"""Architectures: a tiny random model of every kind of causal decoder that tests compare on."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

VOCABULARY = 160
WIDTH, INNER, LAYERS, HEADS = 64, 128, 2, 4
POSITIONS = 256

LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": POSITIONS,
}
GROUPED = {**LLAMA, "num_key_value_heads": 2}
GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": WIDTH,
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_positions": POSITIONS,
}
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


@dataclass(frozen=True)
class Architecture:
    """A model type and the fields of its configuration, chosen so that its peculiarities count.

    Where a model scales or caps its logits, drops out residuals or looks through a window, the
    field says so with a value that changes results.
    """

    model_type: str
    fields: dict[str, Any] = field(default_factory=dict)

    def written(self) -> dict[str, Any]:
        """As the ``[config]`` of a model TOML."""
        return {"model_type": self.model_type, **self.fields, **TOKENS}


def _of(model_type: str, base: dict[str, Any], **more: Any) -> Architecture:
    return Architecture(model_type, {**base, **more})


ARCHITECTURES: dict[str, Architecture] = {
    "llama": _of("llama", GROUPED),
    "mistral": _of("mistral", GROUPED, sliding_window=None),
    "mistral_window": _of("mistral", GROUPED, sliding_window=16),
    "qwen2": _of("qwen2", GROUPED),
    "qwen2_window": _of(
        "qwen2", GROUPED, use_sliding_window=True, sliding_window=16, max_window_layers=0
    ),
    "qwen3": _of("qwen3", GROUPED, head_dim=16),
    "gemma": _of("gemma", GROUPED, head_dim=16),
    "gemma2": _of(
        "gemma2", GROUPED, head_dim=16, sliding_window=16, final_logit_softcapping=2.0,
        attn_logit_softcapping=2.0,
    ),
    "gemma3_text": _of("gemma3_text", GROUPED, head_dim=16, sliding_window=16),
    "phi": _of("phi", LLAMA, resid_pdrop=0.1, embd_pdrop=0.1, attention_dropout=0.1),
    "phi3": _of("phi3", GROUPED, resid_pdrop=0.1, embd_pdrop=0.1, sliding_window=16),
    "gpt2": _of("gpt2", GPT2),
    "gpt_neo": _of(
        "gpt_neo",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": WIDTH,
            "num_layers": LAYERS,
            "num_heads": HEADS,
            "max_position_embeddings": POSITIONS,
        },
        attention_types=[[["global", "local"], 1]],
        window_size=16,
        embed_dropout=0.1,
        attention_dropout=0.1,
        resid_dropout=0.1,
    ),
    "gpt_neox": _of("gpt_neox", LLAMA, hidden_dropout=0.1, attention_dropout=0.1),
    "gptj": _of("gptj", GPT2, rotary_dim=8, attn_pdrop=0.1, embd_pdrop=0.1, resid_pdrop=0.1),
    "gpt_bigcode": _of("gpt_bigcode", GPT2),
    "codegen": _of("codegen", GPT2, n_ctx=POSITIONS, rotary_dim=8, resid_pdrop=0.1),
    "opt": _of(
        "opt",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": WIDTH,
            "ffn_dim": INNER,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "max_position_embeddings": POSITIONS,
        },
        word_embed_proj_dim=32,
        dropout=0.1,
        attention_dropout=0.1,
    ),
    "bloom": _of(
        "bloom",
        {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "n_layer": LAYERS, "n_head": HEADS},
        hidden_dropout=0.1,
        attention_dropout=0.1,
    ),
    "falcon": _of(
        "falcon", LLAMA, multi_query=True, parallel_attn=True, bias=False, hidden_dropout=0.1,
        attention_dropout=0.1,
    ),
    "falcon_alibi": _of(
        "falcon", LLAMA, alibi=True, multi_query=False, parallel_attn=False, bias=True,
        hidden_dropout=0.1,
    ),
    "mpt": _of(
        "mpt",
        {
            "vocab_size": VOCABULARY,
            "d_model": WIDTH,
            "n_layers": LAYERS,
            "n_heads": HEADS,
            "max_seq_len": POSITIONS,
        },
        resid_pdrop=0.1,
        emb_pdrop=0.1,
    ),
    "granite": _of(
        "granite", GROUPED, logits_scaling=8.0, embedding_multiplier=12.0,
        residual_multiplier=0.22, attention_multiplier=0.1,
    ),
    "granitemoe": _of(
        "granitemoe", GROUPED, logits_scaling=6.0, num_local_experts=4, num_experts_per_tok=2
    ),
    "cohere": _of("cohere", GROUPED, logit_scale=0.0625),
    "cohere2": _of("cohere2", GROUPED, logit_scale=0.25, sliding_window=16),
    "falcon_h1": _of(
        "falcon_h1", GROUPED, lm_head_multiplier=0.25, embedding_multiplier=3.0, mamba_d_ssm=64,
        mamba_n_heads=4, mamba_d_head=16, mamba_d_state=16, mamba_n_groups=1, head_dim=16,
    ),
    "olmo": _of("olmo", GROUPED),
    "olmo2": _of("olmo2", GROUPED),
    "stablelm": _of("stablelm", GROUPED, hidden_dropout=0.1, attention_dropout=0.1),
    "starcoder2": _of(
        "starcoder2", GROUPED, residual_dropout=0.1, embedding_dropout=0.1, sliding_window=16
    ),
    "glm": _of("glm", GROUPED, head_dim=16),
    "glm4": _of("glm4", GROUPED, head_dim=16),
    "smollm3": _of("smollm3", GROUPED),
    "nemotron": _of("nemotron", GROUPED),
    "persimmon": _of("persimmon", LLAMA, hidden_dropout=0.1),
    "helium": _of("helium", GROUPED, head_dim=16),
    "ernie4_5": _of("ernie4_5", GROUPED, head_dim=16),
    "exaone4": _of("exaone4", GROUPED, sliding_window=16, sliding_window_pattern=2),
    "biogpt": _of("biogpt", LLAMA, hidden_dropout_prob=0.1, layerdrop=0.0),
    "xglm": _of(
        "xglm",
        {
            "vocab_size": VOCABULARY,
            "d_model": WIDTH,
            "ffn_dim": INNER,
            "num_layers": LAYERS,
            "attention_heads": HEADS,
            "max_position_embeddings": POSITIONS,
        },
        dropout=0.1,
    ),
    "mixtral": _of("mixtral", GROUPED, num_local_experts=4, num_experts_per_tok=2),
    "qwen2_moe": _of(
        "qwen2_moe", GROUPED, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
    ),
    "olmoe": _of("olmoe", GROUPED, num_experts=4, num_experts_per_tok=2),
    "recurrent_gemma": _of(
        "recurrent_gemma", GROUPED, head_dim=16, lru_width=WIDTH, logits_soft_cap=2.0,
        attention_window_size=16, block_types=["recurrent", "attention"],
    ),
    "mamba2": _of(
        "mamba2",
        {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS},
        num_heads=8, head_dim=16, state_size=16, n_groups=1, expand=2,
    ),
}  # fmt: skip


def tiny_config(name: str, **changes: Any) -> PretrainedConfig:
    """The transformers configuration of ``ARCHITECTURES[name]``, some fields changed."""
    from transformers import AutoConfig

    written = {**ARCHITECTURES[name].written(), **changes}
    return AutoConfig.for_model(written.pop("model_type"), **written)


def tiny_causal(name: str, seed: int = 0, **changes: Any) -> nn.Module:
    """A random float32 model in evaluation mode; norms and biases are moved off 1 and 0."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_config(tiny_config(name, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    built: nn.Module = model.float().eval()
    return built


def save_architecture(name: str, folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Weights and configuration in the transformers layout, without a tokenizer."""
    model: Any = tiny_causal(name, seed, **changes)
    model.save_pretrained(folder)
    return folder


def model_toml(name: str, path: Path, folder: Path, **changes: Any) -> Path:
    """A model TOML that points at ``folder`` and states the shape of ``ARCHITECTURES[name]``."""
    lines = [
        f'description = "tiny {name}"',
        'license = "Apache-2.0"',
        'chat_template = "chatml"',
        "[source]",
        'kind = "folder"',
        f"path = {json.dumps(str(folder))}",
        "[config]",
    ]
    for key, value in {**ARCHITECTURES[name].written(), **changes}.items():
        if value is not None:
            lines.append(f"{key} = {json.dumps(value)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
