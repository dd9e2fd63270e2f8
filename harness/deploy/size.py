"""Size: what an export takes of the disk, from the shapes of the base weights alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from harness.errors import InvalidFile
from harness.spec.form import Form
from harness.spec.variant import Dtype

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor in a model folder, read from the headers of its safetensors.

    Raises:
        InvalidFile: a header that cannot be read.
    """
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length))
        except (OSError, ValueError, OverflowError, MemoryError) as error:
            raise InvalidFile(f"not a safetensors file: {error}", where=path) from None
        for name, entry in header.items():
            if name != "__metadata__":
                found[name] = tuple(entry["shape"])
    return found


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def export_bytes(form: Form, source: Path, adapter: Path, dtype: Dtype, tokenizer: int = 0) -> int:
    """Upper estimate of the bytes on disk while a form is written.

    What is quantized again passes through a merged folder, which is what counts here; what is
    made of it comes on top (:func:`harness.forms.again.again_bytes`). ``tokenizer`` are the bytes
    of the files that lie beside every form; a GGUF file holds its words once more.
    """
    beside = 2 * tokenizer if form.quant is not None else tokenizer
    return beside + _weight_bytes(form, source, adapter, dtype)


def _weight_bytes(form: Form, source: Path, adapter: Path, dtype: Dtype) -> int:
    if form.kind == "training":
        return folder_bytes(adapter)
    shapes = stored_shapes(source)
    merged = sum(map(math.prod, shapes.values())) * ITEM_BYTES[dtype]
    if form.quant is not None:
        from harness.forms.gguf.families import file_bytes

        return file_bytes(shapes, _config(source), form.quant)
    return merged


def _config(source: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidFile(f"not a model's configuration: {error}", where=source) from None
    return found
