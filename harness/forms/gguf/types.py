"""Types: which llama.cpp type each tensor gets in a file type, and the bytes that makes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from harness.errors import UserError

Type = gguf.GGMLQuantizationType
FILE_TYPES: dict[str, tuple[gguf.LlamaFileType, Any]] = {
    "F32": (gguf.LlamaFileType.ALL_F32, Type.F32),
    "F16": (gguf.LlamaFileType.MOSTLY_F16, Type.F16),
    "BF16": (gguf.LlamaFileType.MOSTLY_BF16, Type.BF16),
    "Q8_0": (gguf.LlamaFileType.MOSTLY_Q8_0, Type.Q8_0),
    "Q6_K": (gguf.LlamaFileType.MOSTLY_Q6_K, Type.Q6_K),
    "Q5_K_M": (gguf.LlamaFileType.MOSTLY_Q5_K_M, Type.Q5_K),
    "Q5_0": (gguf.LlamaFileType.MOSTLY_Q5_0, Type.Q5_0),
    "Q4_K_M": (gguf.LlamaFileType.MOSTLY_Q4_K_M, Type.Q4_K),
    "Q4_0": (gguf.LlamaFileType.MOSTLY_Q4_0, Type.Q4_0),
}
# A row that is no multiple of 256 cannot be of a K type; llama.cpp takes the next larger type.
NARROW = {Type.Q4_K: Type.Q5_0, Type.Q5_K: Type.Q5_1, Type.Q6_K: Type.Q8_0}
K_TYPES = frozenset(NARROW)
LIBRARY = "xllamacpp"


def tensor_type(name: str, shape: Sequence[int], quant: str, layers: int) -> Any:
    """The type of one tensor of ``shape`` [rows, columns] in a file of type ``quant``.

    As llama.cpp mixes them: vectors stay float32; the words and the output head are never below
    6 bits; in the ``_M`` types half of the value and down projections have 6.
    """
    wanted = FILE_TYPES[quant][1]
    if len(shape) < 2:
        return Type.F32
    if wanted in (Type.F32, Type.F16, Type.BF16):
        return wanted
    if name in ("output.weight", "token_embd.weight"):
        wanted = Type.Q6_K if wanted in K_TYPES else Type.Q8_0
    elif quant.endswith("_M") and _precious(name, layers):
        wanted = Type.Q6_K
    return _that_fits(wanted, shape[-1])


def _precious(name: str, layers: int) -> bool:
    """Whether llama.cpp spends more bits: first and last eighth of the layers, then each third."""
    if not (".attn_v." in name or ".ffn_down." in name):
        return False
    layer = int(name.split(".")[1])
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _that_fits(wanted: Any, columns: int) -> Any:
    if wanted in K_TYPES and columns % 256:
        wanted = NARROW[wanted]
    return wanted if columns % 32 == 0 else Type.F16


def tensor_bytes(kind: Any, shape: Sequence[int]) -> int:
    """Bytes of a tensor of a type."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    count = int(np.prod(shape))
    return int(count // block * size)


def needs_library(quant: str) -> bool:
    """Whether a file type needs llama.cpp's own library: the gguf package has no K types."""
    return FILE_TYPES[quant][1] in K_TYPES


def check_library(quant: str) -> None:
    """Refuse a K type where llama.cpp's library is not installed.

    Raises:
        UserError: naming what to install, and the types that need nothing.
    """
    if needs_library(quant) and _library() is None:
        plain = [name for name in FILE_TYPES if not needs_library(name)]
        raise UserError(
            f"{quant} is quantized by llama.cpp's own library, which is not installed",
            expected=f"the package {LIBRARY}, or one of {', '.join(plain)}",
            hint=f"pip install {LIBRARY}",
        )


def encode(values: npt.NDArray[np.float32], kind: Any) -> npt.NDArray[Any]:
    """``values`` [rows, columns] in a type: float arrays, or the packed bytes of each row."""
    values = np.ascontiguousarray(values, np.float32)
    if kind == Type.F32:
        return values
    if kind == Type.F16:
        return values.astype(np.float16)
    if kind in K_TYPES:
        return _encode_by_library(values, kind)
    packed: npt.NDArray[Any] = gguf.quants.quantize(values, kind)
    return packed


def _encode_by_library(values: npt.NDArray[np.float32], kind: Any) -> npt.NDArray[np.uint8]:
    library = _library()
    assert library is not None  # noqa: S101 - check_library comes first
    rows, columns = values.shape
    packed = np.zeros((rows, tensor_bytes(kind, (columns,))), np.uint8)
    written = library.ggml_quantize_chunk(
        int(kind), values.ctypes.data, packed.ctypes.data, 0, rows, columns, None
    )
    if written != packed.nbytes:
        msg = f"llama.cpp wrote {written} bytes of {kind.name}, not {packed.nbytes}"
        raise RuntimeError(msg)
    return packed


@cache
def _library() -> Any:
    """llama.cpp's library inside the package that brings it, or None."""
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec(LIBRARY)
    if spec is None or spec.origin is None:
        return None
    files = sorted(Path(spec.origin).parent.glob(f"{LIBRARY}*.so"))
    if not files:
        return None
    try:
        library = ctypes.CDLL(str(files[0]))
        function = library.ggml_quantize_chunk
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_size_t
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [ctypes.c_int, pointer, pointer, size, size, size, pointer]
    return library
