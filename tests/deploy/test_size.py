"""Size: how large an export will be, read from headers alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.deploy.size import GGUF_BITS, export_bytes, folder_bytes, stored_elements
from harness.errors import InvalidFile
from harness.spec.form import parse_form


def safetensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A file with a header and no weights: nothing else is read."""
    header = {
        name: {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 0]}
        for name, shape in shapes.items()
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of 1,000 weights in two shards."""
    folder = tmp_path / "model"
    folder.mkdir()
    safetensors(folder / "a.safetensors", {"a.weight": (20, 40), "a.bias": (20,)})
    safetensors(folder / "b.safetensors", {"b.weight": (18, 10)})
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    (folder / "deep").mkdir(parents=True)
    (folder / "a").write_bytes(b"x" * 100)
    (folder / "deep" / "b").write_bytes(b"x" * 23)
    return folder


def test_elements_are_counted_by_shape_over_all_shards(model: Path) -> None:
    assert stored_elements(model) == {"a.weight": 800, "a.bias": 20, "b.weight": 180}


def test_a_folder_without_weights_has_none(tmp_path: Path) -> None:
    assert stored_elements(tmp_path) == {}


@pytest.mark.parametrize("content", [b"", b"\x05\x00\x00\x00\x00\x00\x00\x00{", b"\xff" * 40])
def test_what_is_no_safetensors_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.safetensors").write_bytes(content)
    with pytest.raises(InvalidFile, match="not a safetensors file") as caught:
        stored_elements(tmp_path)
    assert "broken.safetensors" in str(caught.value)


def test_files_are_counted_at_any_depth(adapter: Path) -> None:
    assert folder_bytes(adapter) == 123


@pytest.mark.parametrize(
    ("form", "dtype", "expected"),
    [
        ("training", "bfloat16", 123),
        ("merged", "bfloat16", 2000),
        ("merged", "float32", 4000),
        ("merged_dequantized", "float16", 2000),
        ("merged_4bit", "bfloat16", 4000),
        ("gguf:Q8_0", "bfloat16", 1062),
        ("gguf:Q4_K_M", "bfloat16", 750),
    ],
)
def test_a_form_takes_its_bits_a_weight(
    model: Path, adapter: Path, form: str, dtype: str, expected: int
) -> None:
    assert export_bytes(parse_form(form), model, adapter, dtype) == expected  # type: ignore[arg-type]


def test_smaller_types_are_not_thought_larger() -> None:
    order = ["F32", "F16", "Q8_0", "Q5_K_M", "Q5_0", "Q4_K_M", "Q4_0"]
    bits = [GGUF_BITS[name] for name in order]
    assert bits == sorted(bits, reverse=True)
