"""Headers: how the weights of a model lie on the disk, by the headers of their files."""

from __future__ import annotations

import json
from collections import Counter
from functools import lru_cache
from pathlib import Path

from harness.spec.model import FolderSource, HubSource, Model

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
LONGEST_HEADER = 100 << 20  # bytes: what safetensors itself takes


def stored_bytes(model: Model) -> dict[str, int] | None:
    """Bytes of the weights by dtype (by safetensors' own name where torch has no plain one).

    None where the files are not on this machine, or are no safetensors.
    """
    folder = local_files(model)
    files = [] if folder is None else sorted(folder.glob("*.safetensors"))
    if not files:
        return None
    found = Counter[str]()
    for path in files:
        try:
            stat = path.stat()
            found.update(dict(_of_file(path, stat.st_mtime_ns, stat.st_size)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # loading the model tells what is wrong
    return dict(found)


def local_files(model: Model) -> Path | None:
    """Where the files of a folder, or of a hub repository that was fetched, lie."""
    source = model.source
    if isinstance(source, FolderSource):
        return Path(source.path).expanduser()
    if not isinstance(source, HubSource):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repository, "config.json", revision=source.revision)
    return Path(found).parent if isinstance(found, str) else None


@lru_cache
def _of_file(path: Path, _changed: int, size: int) -> tuple[tuple[str, int], ...]:
    """Bytes by dtype in one file, read again when it has changed."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size, LONGEST_HEADER):
            msg = "no safetensors"
            raise ValueError(msg)
        header = json.loads(file.read(length))
    found = Counter[str]()
    for name, tensor in header.items():
        if name != "__metadata__":
            first, last = tensor["data_offsets"]
            found[DTYPES.get(tensor["dtype"], tensor["dtype"])] += last - first
    return tuple(found.items())
