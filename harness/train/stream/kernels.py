"""Triton kernels of the fast path: one pass over memory where PyTorch would take several."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Triton compiles function bodies by itself, so their annotations and call sites are opaque to mypy.


@triton.jit
def _dequantize_kernel(
    packed, codes, absmax, absmax_codes, absmax_scales, offset, out, blocks,
    blocks_per_row, stride, NESTED: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64) * GROUP + tl.arange(0, GROUP)
    inside = block < blocks
    byte_at = block[:, None] * 32 + tl.arange(0, 32)[None, :]
    byte = tl.load(packed + byte_at, mask=inside[:, None], other=0).to(tl.int32)
    if NESTED:
        code = tl.load(absmax + block, mask=inside, other=0).to(tl.int32)
        scale = tl.load(absmax_codes + code)
        scale *= tl.load(absmax_scales + block // 256, mask=inside, other=0.0)
        scale += tl.load(offset)
    else:
        scale = tl.load(absmax + block, mask=inside, other=0.0)
    high = tl.load(codes + (byte >> 4)) * scale[:, None]
    low = tl.load(codes + (byte & 15)) * scale[:, None]
    values = tl.interleave(high, low).to(out.dtype.element_ty)
    start = block // blocks_per_row * stride + block % blocks_per_row * 64
    at = start[:, None] + tl.arange(0, 64)[None, :]
    tl.store(out + at, values, mask=inside[:, None])


def dequantize_into(out: Tensor, packed: Tensor, state: Any) -> None:
    """Write the 4-bit weight ``packed`` (bitsandbytes, blocks of 64) into (rows, inputs) ``out``.

    Rows may be strided; a row is a whole number of blocks.
    """
    blocks = out.numel() // 64
    nested = state.nested
    group = 32
    _dequantize_kernel[(triton.cdiv(blocks, group),)](
        packed, state.code, state.absmax,
        state.state2.code if nested else state.code,
        state.state2.absmax if nested else state.code,
        state.offset if nested else state.code,
        out, blocks, out.shape[1] // 64, out.stride(0), NESTED=nested, GROUP=group, num_warps=4,
    )  # fmt: skip


@triton.jit
def _rotate_kernel(
    x, stride, cos, sin, heads, size, sign, HALF: tl.constexpr, HEADS: tl.constexpr
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    pair = tl.arange(0, HALF)
    c = tl.load(cos + token * 2 * HALF + pair)[None, :]
    s = tl.load(sin + token * 2 * HALF + pair)[None, :] * sign
    head = tl.arange(0, HEADS)
    at = x + token * stride + head[:, None] * size + pair[None, :]
    mask = head[:, None] < heads
    first = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(at + HALF, mask=mask, other=0.0).to(tl.float32)
    tl.store(at, (first * c - second * s).to(x.dtype.element_ty), mask=mask)
    tl.store(at + HALF, (second * c + first * s).to(x.dtype.element_ty), mask=mask)


def rotate_(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> None:
    """Rotate the first ``cos.shape[1]`` channels of (tokens, heads, size) ``x`` in place."""
    tokens, heads, size = x.shape
    _rotate_kernel[(tokens,)](
        x, x.stride(0), cos, sin, heads, size, sign,
        HALF=cos.shape[1] // 2, HEADS=triton.next_power_of_2(heads), num_warps=4,
    )  # fmt: skip


@triton.jit
def _unrotate_kernel(
    source, out, stride, cos, sin, heads, size,
    HALF: tl.constexpr, HEADS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, SIZE)
    turning = channel < 2 * HALF
    c = tl.load(cos + token * 2 * HALF + channel, mask=turning, other=1.0)[None, :]
    s = tl.load(sin + token * 2 * HALF + channel, mask=turning, other=0.0)[None, :]
    partner = tl.where(channel < HALF, channel + HALF, channel - HALF)
    partner = tl.where(turning, partner, channel)
    head = tl.arange(0, HEADS)[:, None]
    mask = (head < heads) & (channel < size)[None, :]
    at = source + token * heads * size + head * size
    own = tl.load(at + channel[None, :], mask=mask, other=0.0).to(tl.float32)
    other = tl.load(at + partner[None, :], mask=mask, other=0.0).to(tl.float32)
    value = own * c + tl.where(channel < HALF, other, -other) * s
    place = out + token * stride + head * size + channel[None, :]
    tl.store(place, value.to(out.dtype.element_ty), mask=mask)


def unrotate(source: Tensor, out: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Write contiguous (tokens, heads, size) ``source``, rotated back, into ``out``."""
    tokens, heads, size = source.shape
    _unrotate_kernel[(tokens,)](
        source, out, out.stride(0), cos, sin, heads, size,
        HALF=cos.shape[1] // 2, HEADS=triton.next_power_of_2(heads),
        SIZE=triton.next_power_of_2(size), num_warps=4,
    )  # fmt: skip


@triton.jit
def _tanh(x):
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit
def _gelu_kernel(x, stride, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < width
    v = tl.load(x + row * stride + column, mask=mask, other=0.0).to(tl.float32)
    t = _tanh(0.7978845608028654 * (v + 0.044715 * v * v * v))
    tl.store(out + row * width + column, (0.5 * v * (1.0 + t)).to(out.dtype.element_ty), mask=mask)


@triton.jit
def _gelu_back_kernel(x, stride, slope, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < width
    at_x = x + row * stride + column
    at_slope = slope + row * width + column
    v = tl.load(at_x, mask=mask, other=0.0).to(tl.float32)
    g = tl.load(at_slope, mask=mask, other=0.0).to(tl.float32)
    t = _tanh(0.7978845608028654 * (v + 0.044715 * v * v * v))
    inner = 0.7978845608028654 * (1.0 + 3 * 0.044715 * v * v)
    d = 0.5 * (1.0 + t) + 0.5 * v * (1.0 - t * t) * inner
    tl.store(at_x, (g * d).to(x.dtype.element_ty), mask=mask)
    tl.store(at_slope, (0.5 * v * (1.0 + t)).to(slope.dtype.element_ty), mask=mask)


def gelu(x: Tensor) -> Tensor:
    """GELU (tanh form) of (tokens, width) ``x``, whose rows may be strided."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    rows, width = x.shape
    _gelu_kernel[(rows, triton.cdiv(width, 2048))](x, x.stride(0), out, width, BLOCK=2048)
    return out


def gelu_back_(x: Tensor, slope: Tensor) -> None:
    """Turn ``x`` into its gradient and ``slope`` (that of the output) into the output."""
    rows, width = x.shape
    _gelu_back_kernel[(rows, triton.cdiv(width, 2048))](x, x.stride(0), slope, width, BLOCK=2048)


@triton.jit
def _silu_mul_kernel(x, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < width
    gate = tl.load(x + row * 2 * width + column, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(x + row * 2 * width + width + column, mask=mask, other=0.0).to(tl.float32)
    value = gate * tl.sigmoid(gate) * up
    tl.store(out + row * width + column, value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _silu_mul_back_kernel(x, slope, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < width
    at_gate = x + row * 2 * width + column
    at_slope = slope + row * width + column
    gate = tl.load(at_gate, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(at_gate + width, mask=mask, other=0.0).to(tl.float32)
    g = tl.load(at_slope, mask=mask, other=0.0).to(tl.float32)
    s = tl.sigmoid(gate)
    tl.store(at_gate, (g * up * s * (1.0 + gate * (1.0 - s))).to(x.dtype.element_ty), mask=mask)
    tl.store(at_gate + width, (g * gate * s).to(x.dtype.element_ty), mask=mask)
    tl.store(at_slope, (gate * s * up).to(slope.dtype.element_ty), mask=mask)


def silu_mul(x: Tensor) -> Tensor:
    """silu(gate) * up of contiguous (tokens, 2 * width) ``x``."""
    rows, width = x.shape[0], x.shape[1] // 2
    out = torch.empty((rows, width), dtype=x.dtype, device=x.device)
    _silu_mul_kernel[(rows, triton.cdiv(width, 2048))](x, out, width, BLOCK=2048)
    return out


def silu_mul_back_(x: Tensor, slope: Tensor) -> None:
    """Turn ``x`` into its gradient and ``slope`` (that of the output) into the output."""
    rows, width = slope.shape
    _silu_mul_back_kernel[(rows, triton.cdiv(width, 2048))](x, slope, width, BLOCK=2048)


@triton.jit
def _rms_kernel(x, weight, out, out_stride, width, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask = column < width
    v = tl.load(x + row * width + column, mask=mask, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(v * v) / width + eps)
    w = tl.load(weight + column, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row * out_stride + column, (v * scale * w).to(out.dtype.element_ty), mask=mask)


@triton.jit
def _rms_back_kernel(x, weight, slope, slope_stride, total, width, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask = column < width
    at = row * width + column
    v = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    g = tl.load(slope + row * slope_stride + column, mask=mask, other=0.0).to(tl.float32)
    g *= tl.load(weight + column, mask=mask, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(v * v) / width + eps)
    d = scale * (g - v * scale * scale * (tl.sum(g * v) / width))
    d += tl.load(total + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(total + at, d.to(total.dtype.element_ty), mask=mask)


def rms_norm(x: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
    """Root-mean-square norm of the rows of contiguous ``x``."""
    block = triton.next_power_of_2(x.shape[1])
    _rms_kernel[(x.shape[0],)](
        x, weight, out, out.stride(0), x.shape[1], eps, BLOCK=block, num_warps=8
    )


def rms_norm_back_(x: Tensor, weight: Tensor, eps: float, slope: Tensor, total: Tensor) -> None:
    """Add the gradient of ``x`` to ``total``, given ``slope`` of the norm's output."""
    block = triton.next_power_of_2(x.shape[1])
    _rms_back_kernel[(x.shape[0],)](
        x, weight, slope, slope.stride(0), total, x.shape[1], eps, BLOCK=block, num_warps=8
    )


@triton.jit
def _layer_norm_kernel(x, weight, bias, out, out_stride, width, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask = column < width
    v = tl.load(x + row * width + column, mask=mask, other=0.0).to(tl.float32)
    v = tl.where(mask, v - tl.sum(v) / width, 0.0)
    scale = tl.rsqrt(tl.sum(v * v) / width + eps)
    w = tl.load(weight + column, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(bias + column, mask=mask, other=0.0).to(tl.float32)
    value = (v * scale * w + b).to(out.dtype.element_ty)
    tl.store(out + row * out_stride + column, value, mask=mask)


@triton.jit
def _layer_norm_back_kernel(x, weight, slope, slope_stride, total, width, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask = column < width
    at = row * width + column
    v = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    v = tl.where(mask, v - tl.sum(v) / width, 0.0)
    scale = tl.rsqrt(tl.sum(v * v) / width + eps)
    g = tl.load(slope + row * slope_stride + column, mask=mask, other=0.0).to(tl.float32)
    g *= tl.load(weight + column, mask=mask, other=0.0).to(tl.float32)
    d = scale * (g - tl.sum(g) / width - v * scale * scale * (tl.sum(g * v) / width))
    d += tl.load(total + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(total + at, d.to(total.dtype.element_ty), mask=mask)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, out: Tensor) -> None:
    """Layer norm of the rows of contiguous ``x``."""
    block = triton.next_power_of_2(x.shape[1])
    _layer_norm_kernel[(x.shape[0],)](
        x, weight, bias, out, out.stride(0), x.shape[1], eps, BLOCK=block, num_warps=8
    )


def layer_norm_back_(x: Tensor, weight: Tensor, eps: float, slope: Tensor, total: Tensor) -> None:
    """Add the gradient of ``x`` to ``total``, given ``slope`` of the norm's output."""
    block = triton.next_power_of_2(x.shape[1])
    _layer_norm_back_kernel[(x.shape[0],)](
        x, weight, slope, slope.stride(0), total, x.shape[1], eps, BLOCK=block, num_warps=8
    )


@triton.jit
def _cross_entropy_kernel(logits, targets, losses, scale, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = logits + row * width
    target = tl.load(targets + row)
    carries = target >= 0
    wanted = tl.load(at + tl.maximum(target, 0)).to(tl.float32)
    top = tl.full((BLOCK,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        v = tl.load(at + column, mask=column < width, other=-float("inf")).to(tl.float32)
        new = tl.maximum(top, v)
        total = total * tl.where(new == top, 1.0, tl.exp(top - new)) + tl.where(
            column < width, tl.exp(v - new), 0.0
        )
        top = new
    peak = tl.max(top)
    log_sum = peak + tl.log(tl.sum(total * tl.exp(top - peak)))
    tl.store(losses + row, tl.where(carries, log_sum - wanted, 0.0))
    factor = tl.where(carries, tl.load(scale), 0.0)
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        mask = column < width
        v = tl.load(at + column, mask=mask, other=-float("inf")).to(tl.float32)
        p = tl.exp(v - log_sum)
        p = tl.where(column == target, p - 1.0, p) * factor
        tl.store(at + column, p.to(logits.dtype.element_ty), mask=mask)


def cross_entropy_(logits: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    """Per-row loss (float32), 0 where the target is negative; ``logits`` turn into gradients."""
    losses = torch.empty(logits.shape[0], dtype=torch.float32, device=logits.device)
    _cross_entropy_kernel[(logits.shape[0],)](
        logits, targets, losses, scale, logits.shape[1], BLOCK=4096, num_warps=8
    )
    return losses
