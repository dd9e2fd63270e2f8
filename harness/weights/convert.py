"""Convert: a GGUF file to a transformers folder of float32 safetensors."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from harness.errors import FetchError

# What the readers of GGUF raise where a header says what cannot be.
DAMAGED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write tokenizer and weights of ``gguf`` into ``folder``.

    Raises:
        FetchError: the file is damaged, or not one that transformers can read.
    """
    try:
        tokenizer, model = _read(gguf)
    except DAMAGED as error:
        reason = str(error).replace(str(gguf), gguf.name)
        raise FetchError(
            f"damaged, or not GGUF that transformers can read: {type(error).__name__}: {reason}",
            where=gguf.name,
            expected="a whole GGUF file whose tensors have the shapes that its header states",
        ) from error
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def _read(gguf: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    # The weights are plain float32 now, but GGUF loading leaves its quantizer behind, and with it
    # transformers refuses to save.
    for holder, name in (
        (model.config, "quantization_config"),
        (model, "hf_quantizer"),
        (model, "quantization_method"),
    ):
        if hasattr(holder, name):
            delattr(holder, name)
    model.is_quantized = False
    return tokenizer, model
