"""Size: how large an export will be, read from headers alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.deploy.size import export_bytes, folder_bytes, stored_shapes
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


def test_shapes_are_read_over_all_shards(model: Path) -> None:
    assert stored_shapes(model) == {"a.weight": (20, 40), "a.bias": (20,), "b.weight": (18, 10)}


def test_a_folder_without_weights_has_none(tmp_path: Path) -> None:
    assert stored_shapes(tmp_path) == {}


@pytest.mark.parametrize("content", [b"", b"\x05\x00\x00\x00\x00\x00\x00\x00{", b"\xff" * 40])
def test_what_is_no_safetensors_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.safetensors").write_bytes(content)
    with pytest.raises(InvalidFile, match="not a safetensors file") as caught:
        stored_shapes(tmp_path)
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
        ("merged_4bit", "bfloat16", 2000),
        ("int8_again", "float32", 4000),
    ],
)
def test_a_form_takes_its_bits_a_weight(
    model: Path, adapter: Path, form: str, dtype: str, expected: int
) -> None:
    assert export_bytes(parse_form(form), model, adapter, dtype) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("quant", "expected"),
    [
        ("F16", 256 * 64 * 2 + 128 * 64 * 2 + 64 * 4),
        ("Q8_0", (256 + 128) * 64 // 32 * 34 + 64 * 4),
        ("Q4_0", 256 * 64 // 32 * 34 + 128 * 64 // 32 * 18 + 64 * 4),
        ("Q4_K_M", 256 * 64 // 32 * 34 + 128 * 64 // 32 * 22 + 64 * 4),  # rows below 256
    ],
)
def test_a_gguf_file_takes_what_the_types_of_its_tensors_take(
    quant: str, expected: int, tmp_path: Path, adapter: Path
) -> None:
    """Words stay at 8 bits, vectors in float32, and short rows take no K type."""
    shapes = {
        "model.embed_tokens.weight": (256, 64),
        "model.layers.0.mlp.up_proj.weight": (128, 64),
        "model.norm.weight": (64,),
    }
    safetensors(tmp_path / "a.safetensors", shapes)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 1}')
    form = parse_form(f"gguf:{quant}")
    assert export_bytes(form, tmp_path, adapter, "bfloat16") == expected
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InvalidFile, match="not a model's configuration"):
        export_bytes(form, tmp_path, adapter, "bfloat16")
