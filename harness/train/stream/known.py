"""Known: plans that the fast path surely takes, told from their fields without any library."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from harness.spec.plan import Plan
from harness.spec.registry import is_usual

SCHEMES = ("none", "nf4", "fp4")  # their layers are all alike, and products with them plain
# Fields of a Llama configuration that the fast path reads off the model, or that do not matter to
# it. A configuration with any other is for `harness.train.stream.refusal` to judge.
FIELDS = frozenset(
    {
        "architectures",
        "attention_bias",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "head_dim",
        "hidden_act",
        "hidden_size",
        "initializer_range",
        "intermediate_size",
        "max_position_embeddings",
        "mlp_bias",
        "model_type",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "pad_token_id",
        "rms_norm_eps",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "tie_word_embeddings",
        "torch_dtype",
        "transformers_version",
        "use_cache",
        "vocab_size",
    }
)


def surely_takes(plan: Plan) -> bool:
    """Whether the fast path takes ``plan``; False: it has to be asked, which needs torch.

    True on a processor for usual LoRA on a Llama without anything unusual, which the decoder that
    trains it confirms when it is made.
    """
    return (
        plan.device.kind == "cpu"
        and plan.quantization.type in SCHEMES
        and not plan.quantization.settings
        and plan.precision.products == "compute"
        and plan.adapter is not None
        and is_usual(plan.adapter)
        and not plan.model.added_tokens
        and _is_plain_llama(plan.model.config)
    )


def _is_plain_llama(config: Mapping[str, JsonValue]) -> bool:
    if config.get("model_type") != "llama" or config.keys() - FIELDS:
        return False
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        return False
    width, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if type(width) is not int or type(heads) is not int or heads < 1 or width % heads:
        return False
    size = config.get("head_dim") or width // heads
    return type(size) is int and size % 8 == 0 and 8 <= size <= 256
