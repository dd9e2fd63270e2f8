"""Microscaled: codes and scales are those of torchao's NVFP4 and MXFP4, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from harness.quantize.grouped import unpack
from harness.quantize.microscaled import LARGEST, VALUES, FloatLinear, to_mxfp4, to_nvfp4
from harness.quantize.microscaling import MXFP4, NVFP4
from harness.quantize.scheme import Target
from harness.spec.variant import Quantization

SCHEMES = {"nvfp4": NVFP4, "mxfp4": MXFP4}


def layer_of(name: str, weight: torch.Tensor, compute: torch.dtype = torch.float32) -> Any:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data = weight.clone()
    target = Target(Quantization(type=name), compute, "cpu")
    layer = SCHEMES[name].quantize(linear, target)
    assert isinstance(layer, FloatLinear)
    return layer


def torchaos(name: str, weight: torch.Tensor) -> Any:
    pytest.importorskip("torchao")
    from torchao.prototype.mx_formats.mx_tensor import MXTensor
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale

    if name == "mxfp4":
        return MXTensor.to_mx(weight, torch.float4_e2m1fn_x2, block_size=32)
    whole = per_tensor_amax_to_scale(weight.abs().max())
    return NVFP4Tensor.to_nvfp4(weight, per_tensor_scale=whole)


@pytest.mark.parametrize("scale", [1e-6, 0.02, 300.0])
@pytest.mark.parametrize("name", SCHEMES)
def test_codes_scales_and_weights_are_torchaos(name: str, scale: float) -> None:
    torch.manual_seed(5)
    weight = torch.randn(24, 96) * scale
    weight[0, :7] = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0]) * scale  # between codes
    weight[0, 7], weight[1, :32] = 6.0 * scale, 0.0
    layer, theirs = layer_of(name, weight), torchaos(name, weight)
    used = weight.view(-1, layer.block).abs().amax(1) > 0  # the scale of zeros means nothing
    assert torch.equal(layer.scale.flatten()[used], theirs.scale.view(torch.uint8).flatten()[used])
    codes = unpack(layer.weight, 4).view(-1, layer.block)[used]
    packed = theirs.qdata.view(torch.uint8)
    wanted = torch.stack((packed & 15, packed >> 4), dim=-1).view(-1, layer.block)[used]
    assert torch.equal(codes, wanted)
    assert torch.equal(layer.dequantized(), theirs.dequantize(torch.float32))


def test_every_float_of_the_format_is_kept() -> None:
    weight = torch.tensor([[*VALUES, *(-value for value in VALUES)]]).repeat(2, 2)
    for name in SCHEMES:
        assert torch.equal(layer_of(name, weight).dequantized(), weight), name


def test_half_way_between_two_floats_the_even_one_is_taken() -> None:
    blocks = torch.tensor([[0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, LARGEST] * 4])
    codes = to_mxfp4(blocks, 32).codes[0, :8]
    assert codes.tolist() == [0, 2, 2, 4, 4, 6, 6, 7]


def test_nothing_but_zeros_stays_so_and_the_last_block_is_filled_up() -> None:
    for name, scheme in SCHEMES.items():
        assert torch.equal(layer_of(name, torch.zeros(3, 7)).dequantized(), torch.zeros(3, 7))
        layer = layer_of(name, torch.full((5, 9), 0.25))
        assert layer.dequantized().shape == (5, 9)
        weighed = scheme.weigh(layer.weight, layer)
        assert weighed is not None
        stored = scheme.stored_bytes(layer.quantization, 5, 9)
        assert (weighed.bytes, weighed.elements) == (stored, 45)


def test_a_cast_of_the_model_does_not_round_scales() -> None:
    weight = torch.randn(8, 64)
    layer = layer_of("mxfp4", weight, torch.bfloat16)
    before = layer.dequantized()
    assert before.dtype == torch.bfloat16
    assert torch.equal(layer.half().dequantized(), before)


def test_a_weight_beyond_a_block_of_small_ones_costs_nvfp4_less() -> None:
    """One outlier in 32 weights spoils two blocks of 16 less than one of 32."""
    torch.manual_seed(0)
    weight = torch.randn(64, 64)
    errors = {
        name: float((layer_of(name, weight).dequantized() - weight).norm() / weight.norm())
        for name in SCHEMES
    }
    assert errors["nvfp4"] < errors["mxfp4"] < 0.13
    assert to_nvfp4(weight, 16).whole is not None
