"""Headers tell how weights lie on the disk; what cannot be read is unknown, and no error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness.spec.model import FolderSource, Model
from harness.spec.registry import load_model
from harness.weights.headers import stored_bytes


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """A model whose folder is ``tmp_path``."""
    source = FolderSource(kind="folder", path=str(tmp_path))
    return load_model("smollm2_135m_instruct").model_copy(update={"source": source})


def test_bytes_of_all_files_are_counted_by_dtype(model: Model, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(2, dtype=torch.bfloat16)},
              tmp_path / "model-00001-of-00002.safetensors", {"format": "pt"})  # fmt: skip
    other = tmp_path / "model-00002-of-00002.safetensors"
    save_file({"c": torch.zeros(7, dtype=torch.int8)}, other)
    assert stored_bytes(model) == {"float32": 60, "bfloat16": 4, "I8": 7}
    save_file({"c": torch.zeros(8, 2)}, other)
    assert stored_bytes(model) == {"float32": 124, "bfloat16": 4}, "read again when it changed"


@pytest.mark.parametrize(
    "content",
    [b"", b"abc", b"\xff" * 80, b"\x02\0\0\0\0\0\0\0[]", b'\x08\0\0\0\0\0\0\0{"a": 1}'],
)
def test_what_is_no_safetensors_is_unknown(model: Model, tmp_path: Path, content: bytes) -> None:
    assert stored_bytes(model) is None, "no file"
    (tmp_path / "model.safetensors").write_bytes(content)
    assert stored_bytes(model) in (None, {})
