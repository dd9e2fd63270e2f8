"""Ops: each step of a layer, forwards and backwards, against autograd in double precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from harness.train.cross_entropy import CACHED_ROWS
from harness.train.stream import attention_back
from harness.train.stream.attention_back import BLOCK, LONGEST
from harness.train.stream.ops import (
    Norm,
    Stream,
    attend,
    attend_back,
    cross_entropy_,
    gelu,
    gelu_back_,
    rotate_,
    silu_mul,
    silu_mul_back_,
    unrotate,
)

LENGTHS = (5, 1, 0, 4)  # of the conversations of a stream, one of which is empty
TOKENS, HEADS, KV_HEADS, SIZE = sum(LENGTHS), 4, 2, 6


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def stream() -> Stream:
    """Conversations one after another, each with positions from 0, a part of the head rotated."""
    starts = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()], dtype=torch.int32)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    rotary = 4
    frequencies = 1 / 100 ** (torch.arange(0, rotary, 2) / rotary)
    angles = positions[:, None] * frequencies[None, :]
    both = torch.cat((angles, angles), dim=1)
    return Stream(starts, max(LENGTHS), both.cos(), both.sin())


def gradient(function: Callable[..., Tensor], slope: Tensor, *inputs: Tensor) -> list[Tensor]:
    """What autograd says."""
    leaves = [one.clone().requires_grad_() for one in inputs]
    return list(torch.autograd.grad(function(*leaves), leaves, slope))


def test_rotation_keeps_lengths_and_leaves_the_rest_of_a_head_alone(stream: Stream) -> None:
    x = random(TOKENS, HEADS, SIZE)
    turned = x.clone()
    rotate_(turned, stream)
    torch.testing.assert_close(turned.norm(dim=2), x.norm(dim=2))
    assert torch.equal(turned[..., 4:], x[..., 4:])
    first = torch.tensor([0, 5, 6])  # the first tokens of conversations
    assert torch.equal(turned[first], x[first]), "position 0 is not turned"
    assert not torch.allclose(turned[1], x[1])


def test_rotation_is_the_one_of_transformers(stream: Stream) -> None:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    x = random(TOKENS, HEADS, 4)
    cos, sin = stream.cos[None].double(), stream.sin[None].double()
    wanted, _ = apply_rotary_pos_emb(x.transpose(0, 1)[None], x.transpose(0, 1)[None], cos, sin)
    turned = x.clone()
    rotate_(turned, stream)
    torch.testing.assert_close(turned, wanted[0].transpose(0, 1))


def test_turning_back_undoes_it(stream: Stream) -> None:
    x = random(TOKENS, HEADS, SIZE)
    turned = x.clone()
    rotate_(turned, stream)
    out = torch.empty_like(x)
    unrotate(turned, out, stream)
    torch.testing.assert_close(out, x, rtol=1e-6, atol=1e-6)


def test_what_turns_back_is_the_gradient_of_turning(stream: Stream) -> None:
    x, slope = random(TOKENS, HEADS, SIZE), random(TOKENS, HEADS, SIZE, seed=1)

    def turn(leaf: Tensor) -> Tensor:
        turned = leaf.clone()
        rotate_(turned, stream)
        return turned

    (wanted,) = gradient(turn, slope, x)
    found = slope.clone()
    rotate_(found, stream, back=True)
    torch.testing.assert_close(found, wanted)


def attention(stream: Stream) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Written out, with a mask of who may see whom."""
    owner = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    place = torch.arange(TOKENS)
    seen = (owner[:, None] == owner[None, :]) & (place[:, None] >= place[None, :])

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (part.repeat_interleave(HEADS // KV_HEADS, dim=1) for part in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) / SIZE**0.5
        weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1)
        return torch.einsum("hqk,khd->qhd", weights, v)

    return run


def test_attention_sees_its_own_conversation_up_to_itself(stream: Stream) -> None:
    q, k, v = random(TOKENS, HEADS, SIZE), *(random(TOKENS, KV_HEADS, SIZE, seed=s) for s in (1, 2))
    out, _ = attend(q, k, v, stream)
    torch.testing.assert_close(out, attention(stream)(q, k, v))


def test_the_gradients_of_attention_are_autograds(stream: Stream) -> None:
    q, k, v = random(TOKENS, HEADS, SIZE), *(random(TOKENS, KV_HEADS, SIZE, seed=s) for s in (1, 2))
    slope = random(TOKENS, HEADS, SIZE, seed=3)
    out, kept = attend(q, k, v, stream)
    found = attend_back(slope, (q, k, v), out, kept, stream)
    for one, wanted in zip(found, gradient(attention(stream), slope, q, k, v), strict=True):
        torch.testing.assert_close(one, wanted)


def by_autograd(slope: Tensor, *parts: Tensor) -> list[Tensor]:
    """Gradients of one conversation's attention in double precision."""

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        wide = (x.transpose(0, 1).repeat_interleave(q.shape[1] // x.shape[1], 0) for x in (q, k, v))
        return functional.scaled_dot_product_attention(*wide, is_causal=True).transpose(0, 1)

    return gradient(run, slope.double(), *(part.double() for part in parts))


@pytest.mark.parametrize("size", [8, 40])  # the scale of the second is no power of two
def test_16_bit_gradients_of_attention_are_as_near_as_torchs_own(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = BLOCK + 40  # the second block is not full
    stream = Stream(torch.tensor([0, tokens], dtype=torch.int32), tokens, *random(2, tokens, 4))
    shapes = ((tokens, 6, size), (tokens, 2, size), (tokens, 2, size), (tokens, 6, size))
    q, k, v, slope = (random(*shape, seed=s).bfloat16() for s, shape in enumerate(shapes))
    q = q * 3  # some exponentials above the diagonal are large
    out, kept = attend(q, k, v, stream)

    def errors() -> list[float]:
        found = attend_back(slope, (q, k, v), out, kept, stream)
        assert {one.dtype for one in found} == {torch.bfloat16}
        wanted = by_autograd(slope, q, k, v)
        return [
            float((one - right).norm() / right.norm())
            for one, right in zip(found, wanted, strict=True)
        ]

    ours = errors()
    monkeypatch.setattr(attention_back, "fits", lambda _: False)
    torchs = errors()
    for mine, other in zip(ours, torchs, strict=True):
        assert 0 < mine < max(3 * other, 0.01)
    assert ours != torchs, "they are two ways"


def test_long_conversations_and_other_dtypes_are_left_to_torchs_attention() -> None:
    fits = attention_back.fits
    assert fits(torch.empty(LONGEST, 1, 8, dtype=torch.bfloat16))
    assert not fits(torch.empty(LONGEST + 1, 1, 8, dtype=torch.bfloat16))
    assert not fits(torch.empty(4, 1, 8))


def test_gelu_and_its_gradient_in_place() -> None:
    x, slope = random(TOKENS, 7), random(TOKENS, 7, seed=1)
    wanted = functional.gelu(x, approximate="tanh")
    torch.testing.assert_close(gelu(x), wanted)
    (grad,) = gradient(lambda leaf: functional.gelu(leaf, approximate="tanh"), slope, x)
    gelu_back_(x, slope)
    torch.testing.assert_close(x, grad)
    torch.testing.assert_close(slope, wanted, msg="the slope became the output")


def test_the_gated_unit_and_its_gradient_in_place() -> None:
    def run(leaf: Tensor) -> Tensor:
        gate, up = leaf.chunk(2, dim=1)
        return functional.silu(gate) * up

    x, slope = random(TOKENS, 10), random(TOKENS, 5, seed=1)
    wanted = run(x)
    torch.testing.assert_close(silu_mul(x), wanted)
    (grad,) = gradient(run, slope, x)
    silu_mul_back_(x, slope)
    torch.testing.assert_close(x, grad)
    torch.testing.assert_close(slope, wanted)


@pytest.mark.parametrize("with_bias", [True, False])
def test_norms_and_their_gradients(with_bias: bool) -> None:
    x, slope = random(TOKENS, 8), random(TOKENS, 8, seed=1)
    weight, bias = random(8, seed=2), random(8, seed=3) if with_bias else None
    norm = Norm(weight, bias, 1e-5)

    def run(leaf: Tensor) -> Tensor:
        if bias is None:
            return leaf / (leaf.square().mean(dim=1, keepdim=True) + 1e-5).sqrt() * weight
        centred = leaf - leaf.mean(dim=1, keepdim=True)
        return centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt() * weight + bias

    torch.testing.assert_close(norm.forward(x), run(x))
    wide = torch.zeros(TOKENS, 16, dtype=torch.float64)
    norm.forward(x, wide[:, 4:12])
    torch.testing.assert_close(wide[:, 4:12], run(x))
    assert not wide[:, :4].any(), "only its own columns are written"
    total = torch.ones_like(x)
    norm.backward_(x, slope, total)
    (grad,) = gradient(run, slope, x)
    torch.testing.assert_close(total, 1 + grad, msg="it is added to what is there")


def test_the_loss_of_rows_with_a_target_and_its_scaled_gradient() -> None:
    targets = torch.tensor([3, -100, 0, 8, -100, 5] * 2)
    assert len(targets) > CACHED_ROWS
    logits = random(len(targets), 9)
    scale = torch.tensor(0.25, dtype=torch.float64)

    def run(leaf: Tensor) -> Tensor:
        return functional.cross_entropy(leaf, targets, ignore_index=-100, reduction="none")

    wanted = run(logits)
    (grad,) = gradient(run, scale.expand(len(targets)), logits)
    losses = cross_entropy_(logits, targets, scale)
    torch.testing.assert_close(losses, wanted)
    torch.testing.assert_close(logits, grad)
    assert not logits[targets < 0].any()


def test_16_bit_logits_keep_their_dtype_and_are_summed_in_float32() -> None:
    logits = random(4, 50).to(torch.bfloat16) * 20
    exact = logits.float().clone()
    targets = torch.arange(4)
    losses = cross_entropy_(logits, targets, torch.tensor(1.0))
    torch.testing.assert_close(losses, functional.cross_entropy(exact, targets, reduction="none"))
    assert losses.dtype == torch.float32
    assert logits.dtype == torch.bfloat16
