"""Grouped: packed codes and their layer, whose product and gradients are those of its weight."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.quantize.affine import INT4
from harness.quantize.grouped import (
    CONSTANT,
    Codes,
    GroupedLinear,
    empty_codes,
    grouped,
    pack,
    unpack,
    weigh_packed,
)
from harness.quantize.scheme import Target
from harness.spec.variant import Quantization

BITS = (1, 2, 3, 4, 8)
TARGET = Target(Quantization(type="int4"), torch.float32, "cpu")


def linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(inputs, outputs, bias=bias)


def layer_of(plain: nn.Linear, target: Target = TARGET) -> GroupedLinear:
    made = INT4.quantize(plain, target)
    assert isinstance(made, GroupedLinear)
    return made


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("count", [8, 64, 328])
def test_codes_take_their_bits_and_come_back(bits: int, count: int) -> None:
    codes = torch.randint(0, 2**bits, (count // 8, 8), dtype=torch.uint8)
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.numel() == count * bits // 8
    assert torch.equal(unpack(packed, bits), codes.flatten())


@pytest.mark.parametrize("bits", BITS)
def test_the_greatest_code_fits(bits: int) -> None:
    codes = torch.full((2, 8), 2**bits - 1, dtype=torch.uint8)
    assert torch.equal(unpack(pack(codes, bits), bits), codes.flatten())


def test_a_last_group_that_is_not_full_repeats_its_end() -> None:
    groups = grouped(torch.arange(10.0).view(2, 5), 4)
    assert groups.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 9, 9]]
    assert grouped(torch.zeros(4, 4, dtype=torch.bfloat16), 4).dtype == torch.float32


def test_the_weight_is_codes_less_zero_times_scale() -> None:
    codes = torch.tensor([[0.0, 1, 2, 3, 4, 5, 6, 7]])
    found = Codes(codes, torch.tensor([[0.5]]), torch.tensor([[2.0]]), 4)
    layer = GroupedLinear(linear(4, 2), found, TARGET)
    assert layer.dequantized().tolist() == [[-1.0, -0.5, 0.0, 0.5], [1.0, 1.5, 2.0, 2.5]]


def test_the_product_is_that_of_the_dequantized_weight_with_the_bias() -> None:
    plain = linear(48, 5)
    layer = layer_of(plain)
    x = torch.randn(3, 48)
    wanted = functional.linear(x, layer.dequantized(), plain.bias)
    torch.testing.assert_close(layer(x), wanted)
    bare = layer_of(linear(48, 5, bias=False))
    torch.testing.assert_close(bare(x), functional.linear(x, bare.dequantized()))


def gradient(layer: nn.Module, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    layer(leaf).square().sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def test_the_gradient_passes_through_the_dequantized_weight() -> None:
    plain = linear(48, 5)
    layer = layer_of(plain)
    copy = linear(48, 5)
    copy.weight.data = layer.dequantized()
    copy.bias = plain.bias
    x = torch.randn(3, 48)
    torch.testing.assert_close(gradient(layer, x), gradient(copy, x))
    assert not layer.weight.requires_grad, "the codes themselves are frozen"


def test_inputs_keep_their_dtype_and_products_are_computed_in_the_target_s() -> None:
    layer = layer_of(linear(32, 4), Target(TARGET.quantization, torch.bfloat16, "cpu"))
    assert layer.dequantized().dtype == torch.bfloat16
    assert layer(torch.randn(2, 32)).dtype == torch.float32


def test_products_in_bfloat16_round_each_weight_once() -> None:
    """A zero such as 128.5 has no bfloat16: rounded by itself, it moved all weights of a group."""
    codes = torch.arange(120.0, 136.0).view(2, 8)
    found = Codes(codes, torch.tensor([[0.1], [0.3]]), torch.tensor([[128.5], [130.25]]), 8)
    layers = [
        GroupedLinear(linear(4, 4), found, Target(TARGET.quantization, dtype, "cpu"))
        for dtype in (torch.float32, torch.bfloat16)
    ]
    exact, rounded = (layer.dequantized() for layer in layers)
    assert torch.equal(rounded, exact.bfloat16())


def test_what_it_weighs_is_what_it_stores() -> None:
    layer = layer_of(linear(64, 6, bias=False))
    weighed = weigh_packed("int4", layer.weight, layer)
    assert weighed is not None
    assert weighed.elements == 64 * 6
    groups = 64 * 6 // 32
    assert weighed.bytes == 64 * 6 // 2 + groups * 2 * CONSTANT.itemsize
    assert weighed.bytes == INT4.stored_bytes(TARGET.quantization, 6, 64)
    assert weighed.compute == "float32"


def test_only_its_own_weight_is_weighed() -> None:
    layer = layer_of(linear(32, 4))
    assert weigh_packed("hqq", layer.weight, layer) is None, "of another scheme"
    assert layer.bias is not None
    assert weigh_packed("int4", layer.bias, layer) is None
    plain = linear(32, 4)
    assert weigh_packed("int4", plain.weight, plain) is None
    assert INT4.holds(layer)
    assert not INT4.holds(plain)


@pytest.mark.parametrize(("inputs", "outputs"), [(32, 4), (33, 5), (7, 3)])
def test_a_phantom_has_the_shapes_of_the_real_layer(inputs: int, outputs: int) -> None:
    plain = linear(inputs, outputs)
    real = layer_of(plain)
    codes = empty_codes(plain, 4, real.group)
    with torch.device("meta"):
        hollow = nn.Linear(inputs, outputs)
    phantom = GroupedLinear(hollow, codes, TARGET)
    for name, tensor in real.state_dict().items():
        shape = phantom.state_dict()[name]
        assert (shape.shape, shape.dtype) == (tensor.shape, tensor.dtype), name
        assert shape.is_meta
