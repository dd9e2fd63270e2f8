"""Types: what llama.cpp gives each tensor in a file type, and how much that takes."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from harness.forms.gguf.types import (
    FILE_TYPES,
    K_TYPES,
    Type,
    check_library,
    encode,
    needs_library,
    tensor_bytes,
    tensor_type,
)
from harness.spec.form import QUANTS

LAYERS = 16
WIDE = (512, 512)


def test_every_file_type_that_can_be_asked_for_is_known() -> None:
    assert set(FILE_TYPES) == set(QUANTS)


@pytest.mark.parametrize("quant", QUANTS)
def test_vectors_stay_as_they_are(quant: str) -> None:
    assert tensor_type("blk.0.attn_norm.weight", (512,), quant, LAYERS) == Type.F32


@pytest.mark.parametrize(("quant", "kind"), [("F32", Type.F32), ("F16", Type.F16)])
def test_whole_numbers_of_bits_are_for_every_matrix(quant: str, kind: object) -> None:
    for name in ("token_embd.weight", "output.weight", "blk.3.ffn_down.weight"):
        assert tensor_type(name, WIDE, quant, LAYERS) == kind


@pytest.mark.parametrize(
    ("quant", "kind"),
    [
        ("Q4_K_M", Type.Q6_K),
        ("Q5_K_M", Type.Q6_K),
        ("Q4_0", Type.Q8_0),
        ("Q5_0", Type.Q8_0),
        ("Q8_0", Type.Q8_0),
    ],
)
@pytest.mark.parametrize("name", ["token_embd.weight", "output.weight"])
def test_words_and_the_output_head_are_never_below_six_bits(
    quant: str, kind: object, name: str
) -> None:
    assert tensor_type(name, WIDE, quant, LAYERS) == kind


def test_half_of_the_value_and_down_projections_have_more_bits() -> None:
    for part in ("attn_v", "ffn_down"):
        kinds = [
            tensor_type(f"blk.{layer}.{part}.weight", WIDE, "Q4_K_M", LAYERS)
            for layer in range(LAYERS)
        ]
        more = [layer for layer, kind in enumerate(kinds) if kind == Type.Q6_K]
        assert more[:2] == [0, 1], "the first eighth"
        assert more[-2:] == [14, 15], "the last eighth"
        assert 4 in more, "and each third between"
        assert 6 <= len(more) <= 9
        assert {kinds[layer] for layer in range(LAYERS) if layer not in more} == {Type.Q4_K}


def test_other_projections_have_the_bits_asked_for() -> None:
    for part in ("attn_q", "attn_k", "attn_output", "ffn_up", "ffn_gate"):
        assert tensor_type(f"blk.0.{part}.weight", WIDE, "Q4_K_M", LAYERS) == Type.Q4_K


@pytest.mark.parametrize(
    ("columns", "quant", "kind"),
    [
        (576, "Q4_K_M", Type.Q5_0),
        (576, "Q5_K_M", Type.Q5_1),
        (576, "Q6_K", Type.Q8_0),
        (576, "Q8_0", Type.Q8_0),
        (100, "Q8_0", Type.F16),
        (100, "Q4_K_M", Type.F16),
    ],
)
def test_a_row_that_does_not_divide_into_blocks_takes_the_next_larger_type(
    columns: int, quant: str, kind: object
) -> None:
    assert tensor_type("blk.5.attn_q.weight", (64, columns), quant, LAYERS) == kind


@pytest.mark.parametrize(
    ("kind", "bits"),
    [(Type.F32, 32), (Type.F16, 16), (Type.Q8_0, 8.5), (Type.Q4_0, 4.5), (Type.Q4_K, 4.5)],
)
def test_bytes_are_those_of_whole_blocks(kind: object, bits: float) -> None:
    assert tensor_bytes(kind, WIDE) == int(512 * 512 * bits / 8)


@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.Q8_0, Type.Q5_0, Type.Q4_0])
def test_encoded_values_come_back_as_nearly_as_their_bits_allow(kind: object) -> None:
    values = np.random.default_rng(2).standard_normal((4, 256)).astype(np.float32)
    packed = encode(values, kind)
    assert packed.nbytes == tensor_bytes(kind, values.shape)
    back = gguf.quants.dequantize(packed, kind)
    allowed = {Type.F32: 0, Type.F16: 1e-3, Type.Q8_0: 0.02, Type.Q5_0: 0.15, Type.Q4_0: 0.35}
    assert np.abs(back.reshape(values.shape) - values).max() <= allowed[kind]  # type: ignore[index]


def test_rows_need_not_lie_together() -> None:
    values = np.random.default_rng(2).standard_normal((256, 4)).astype(np.float64)
    assert encode(values.T, Type.Q8_0).nbytes == tensor_bytes(Type.Q8_0, (4, 256))


def test_only_k_types_need_llama_cpp_itself() -> None:
    assert {name for name in QUANTS if needs_library(name)} == {"Q6_K", "Q5_K_M", "Q4_K_M"}
    assert {FILE_TYPES[name][1] for name in ("Q6_K", "Q5_K_M", "Q4_K_M")} <= K_TYPES
    check_library("Q8_0")
