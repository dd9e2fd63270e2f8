"""llama.cpp in this process: its answers, and its own routines for quantized rows."""

from __future__ import annotations

import ctypes
import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from harness.forms.gguf.families import places
from harness.forms.gguf.types import _library
from tests.weights.tiny_llama import vocabulary

# What llama.cpp rounds the inputs of a product with each type to, and how such a block is laid
# out: weights, bytes, where the scale lies with its dtype, and where the codes begin.
ROUNDED = {"Q4_K": "q8_K", "Q5_K": "q8_K", "Q6_K": "q8_K", "Q4_0": "q8_0", "Q5_0": "q8_0",
           "Q8_0": "q8_0"}  # fmt: skip
LAYOUT = {"q8_0": (32, 34, np.float16, 2), "q8_K": (256, 292, np.float32, 4)}


class LlamaCpp:
    """A file opened by llama.cpp, everything that can be in float32."""

    def __init__(self, path: Path) -> None:
        xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp's library is not installed")
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = 256
        params.cpuparams.n_threads = 1
        params.warmup = False
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._server = xllamacpp.Server(params)

    def log_probs(self, prompt: str | list[int]) -> Any:
        """Log-probability of every token after ``prompt``, [words]."""
        import torch

        first_token = vocabulary().index("a")  # any token that is a text of its own
        answer = self._server.handle_completions(
            {"prompt": prompt, "n_predict": 1, "n_probs": 1000, "temperature": 1.0, "top_k": 0,
             "cache_prompt": False, "logit_bias": [[first_token, 1000.0]]}
        )  # fmt: skip
        (first,) = answer["choices"][0]["logprobs"]["content"]
        found = {item["id"]: item["logprob"] for item in first["top_logprobs"]}
        return torch.tensor([found[token] for token in range(len(found))])

    def tokens(self, text: str) -> list[int]:
        """How the file's vocabulary cuts ``text``, special tokens in it too."""
        asked = json.dumps({"content": text, "add_special": True, "parse_special": True})
        request = urllib.request.Request(
            f"{self._server.listening_address}/tokenize",
            asked.encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            found: list[int] = json.loads(answer.read())["tokens"]
        return found


def _routine(name: str) -> Any:
    routine = getattr(_library(), name)
    routine.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    routine.restype = None
    return routine


def expanded(tensor: Any) -> Any:
    """The values of a quantized tensor of a file, by llama.cpp."""
    data = np.ascontiguousarray(tensor.data)
    values = np.empty(int(np.prod(tensor.shape)), np.float32)
    name = tensor.tensor_type.name.lower().replace("_k", "_K")
    _routine(f"dequantize_row_{name}")(data.ctypes.data, values.ctypes.data, values.size)
    return values


def rounded(values: Any, kind: str) -> Any:
    """``values`` through 8 bits, as llama.cpp rounds the inputs of a product."""
    import torch

    size, block_bytes, scale, begin = LAYOUT[kind]
    given = np.ascontiguousarray(values.detach().float().numpy())
    blocks = np.zeros((given.size // size, block_bytes), np.uint8)
    _routine(f"quantize_row_{kind}_ref")(given.ctypes.data, blocks.ctypes.data, given.size)
    scales = blocks[:, :begin].copy().view(scale).astype(np.float32)
    codes = blocks[:, begin : begin + size].copy().view(np.int8).astype(np.float32)
    return torch.from_numpy((scales * codes).reshape(given.shape))


@contextmanager
def inputs_rounded(model: Any, path: Path) -> Iterator[None]:
    """Every linear layer of ``model`` rounds its input as the file's type of it asks for."""
    import torch

    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
    types = {place.parameter: kinds[place.tensor] for place in places(model)}
    types.setdefault("lm_head.weight", types["model.embed_tokens.weight"])
    hooks = [
        module.register_forward_pre_hook(
            lambda _, given, kind=ROUNDED[types[f"{name}.weight"]]: (rounded(given[0], kind),)
        )
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
