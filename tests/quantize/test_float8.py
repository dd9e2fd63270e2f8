"""Float8: codes and scales as defined, products both ways, and layers that compute with them."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from harness.quantize.float8 import (
    CODES,
    LARGEST,
    multiply,
    round_products,
    rounds,
    rows_to_float8,
    scale_of,
    weight_to_float8,
)
from harness.quantize.scheme import Target, find_scheme
from harness.spec.variant import Quantization


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_each_row_has_a_scale_of_its_own_and_keeps_its_largest_value() -> None:
    x = random(4, 32) * torch.tensor([1e-3, 1.0, 1e3, 0.0])[:, None]
    codes, scales = rows_to_float8(x)
    assert codes.dtype == CODES
    again = codes.float() * scales
    assert ((again - x).abs() <= x.abs() / 16 + scales / 1024).all(), "three bits of mantissa"
    assert torch.equal(scales.log2(), scales.log2().round())
    used = codes.float().abs().amax(1)[:3]
    assert (used > LARGEST / 2 * 0.93).all(), "no scale is larger than it must be"
    assert not again[3].any(), "a row of zeros"


def test_a_weight_is_rounded_once_for_both_directions() -> None:
    weights = random(32, 16), random(16, 16, seed=1) * 5
    scale = scale_of(*weights)
    half = weights[0].bfloat16()
    assert torch.equal(
        weight_to_float8(half, scale).float(), weight_to_float8(half.float(), scale).float()
    )
    least = float(weights[1].abs().max()) / LARGEST
    assert least <= float(scale) < 2 * least
    codes = weight_to_float8(weights[0], scale)
    x, slope = random(5, 16, seed=2), random(5, 32, seed=3)
    exact = codes.float() * scale
    forward = multiply(rows_to_float8(x), codes, scale, None, torch.float32)
    back = multiply(rows_to_float8(slope), codes.t().contiguous(), scale, None, torch.float32)
    for made, wanted in ((forward, x @ exact.t()), (back, slope @ exact)):
        assert (made - wanted).norm() < 0.05 * wanted.norm()
        assert not torch.equal(made, wanted), "inputs are rounded too"


def tiny_gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    shape = {"n_positions": 32, "n_embd": 32, "n_layer": 1, "n_head": 2}
    config = GPT2Config(vocab_size=64, bos_token_id=0, eos_token_id=0, **shape)
    return GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize("kind", ["none", "nf4"])
def test_layers_of_a_model_multiply_in_float8_and_their_copies_too(kind: str) -> None:
    model = tiny_gpt2().requires_grad_(requires_grad=False)
    if kind != "none":
        from harness.quantize.layers import replace_layers

        target = Target(Quantization(type=kind), torch.float32, "cpu")
        replace_layers(model, find_scheme(target.quantization), target)
    ids = torch.arange(12)[None]
    exact = model(ids).logits
    round_products(model)
    assert not rounds(model.lm_head), "the head is no frozen layer of the decoder"
    assert rounds(model.transformer.h[0].mlp.c_fc)
    made = model(ids).logits
    assert 1e-4 < float((made - exact).norm() / exact.norm()) < 0.1
    twin = copy.deepcopy(model)
    assert torch.equal(twin(ids).logits, made)
    with torch.no_grad():
        model.transformer.wte.weight.zero_()
    assert torch.equal(twin(ids).logits, made), "a copy has layers of its own"


def test_the_gradient_of_an_input_is_rounded_too_and_under_autocast_inputs_are_cast() -> None:
    block = tiny_gpt2().transformer.h[0].mlp.requires_grad_(requires_grad=False)
    x = random(2, 3, 32).requires_grad_()
    slope = random(2, 3, 32, seed=1)
    (exact,) = torch.autograd.grad(block(x), x, slope)
    model = tiny_gpt2()
    model.transformer.h[0].mlp = block
    round_products(model)
    (made,) = torch.autograd.grad(block(x), x, slope)
    assert 1e-3 < float((made - exact).norm() / exact.norm()) < 0.1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert block.c_fc(x).dtype == torch.bfloat16
