"""Load: tokenizer and base model in the planned quantization and dtype, on the planned device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import InvalidFile
from harness.spec.plan import Plan
from harness.spec.variant import Quantization

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of the fetched model; code beside it runs only if it is trusted.

    Raises:
        InvalidFile: the folder holds no tokenizer that transformers can read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise InvalidFile(
            f"transformers cannot load the tokenizer: {error}",
            where=folder,
            expected="tokenizer.json and tokenizer_config.json",
        ) from error


def load_base(
    plan: Plan,
    folder: Path,
    quantization: Quantization | None = None,
    *,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """The base model in evaluation mode, frozen.

    ``quantization`` replaces the plan's, to score an adapter on a base it was not trained on.
    Code that lies beside the weights runs only if it is trusted.

    Raises:
        InvalidFile: the folder holds no model that transformers can read.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    chosen = plan.quantization if quantization is None else quantization
    # Fully fine-tuned weights are stored as trainable weights, everything else as compute dtype.
    dtype = getattr(torch, plan.stored)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            quantization_config=_bitsandbytes(chosen, getattr(torch, plan.precision.compute)),
            device_map={"": plan.device.kind},
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            attn_implementation="sdpa",
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise InvalidFile(f"transformers cannot load the model: {error}", where=folder) from error
    keep_as_quantized(model)
    if plan.model.added_tokens:
        model.resize_token_embeddings(model.config.vocab_size + plan.model.added_tokens)
    model.requires_grad_(requires_grad=False)  # whatever is to be trained asks for it later
    return model.eval()


def keep_as_quantized(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking 4-bit weights in place.

    On a processor with AVX512-BF16 the first forward pass in evaluation mode would round the
    constants of every block to bfloat16 and give up double quantization: what is scored, and
    trained after that, would be another base than the one the plan names.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _bitsandbytes(quantization: Quantization, compute: object) -> BitsAndBytesConfig | None:
    from transformers import BitsAndBytesConfig

    if quantization.type == "none":
        return None
    if quantization.type == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.type,
        bnb_4bit_use_double_quant=quantization.double,
        bnb_4bit_compute_dtype=compute,
    )
