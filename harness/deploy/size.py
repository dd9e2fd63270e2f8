"""Size: what an export takes of the disk, from the shapes of the base weights alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

from harness.errors import InvalidFile
from harness.spec.form import Form
from harness.spec.variant import Dtype

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Bits a weight takes at most in a GGUF type, block constants included.
GGUF_BITS = {
    "F32": 32.0, "F16": 16.0, "BF16": 16.0, "Q8_0": 8.5, "Q6_K": 8.5, "Q5_K_M": 7.0, "Q5_0": 6.5,
    "Q4_K_M": 6.0, "Q4_0": 5.5,
}  # fmt: skip


def stored_elements(folder: Path) -> dict[str, int]:
    """Elements of each tensor in a model folder, read from the headers of its safetensors.

    Raises:
        InvalidFile: a header that cannot be read.
    """
    found: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length))
        except (OSError, ValueError, OverflowError, MemoryError) as error:
            raise InvalidFile(f"not a safetensors file: {error}", where=path) from None
        for name, entry in header.items():
            if name != "__metadata__":
                found[name] = math.prod(entry["shape"])
    return found


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def export_bytes(form: Form, source: Path, adapter: Path, dtype: Dtype) -> int:
    """Upper estimate of the bytes on disk while a form is written.

    What is quantized again passes through a merged folder, so both count.
    """
    if form.kind == "training":
        return folder_bytes(adapter)
    elements = sum(stored_elements(source).values())
    merged = elements * ITEM_BYTES[dtype]
    if form.scheme is not None:
        return 2 * merged  # words and output head stay as they are, so this is more than enough
    if form.quant is not None:
        return int(elements * GGUF_BITS[form.quant] / 8)
    return merged
