"""Triton kernels that compute a layer's activation and the adapter's product that reads it.

An adapter of low rank costs little arithmetic, but its products read wide tensors again. Here they
are done while the tensor is in registers. Sums over parts are taken in a fixed order, so that
equal inputs give equal bits. Where adapters of several plans stand side by side (three dimensions,
the plan first), each is for its own part of the rows, all parts being equally long.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from harness.train.stream.kernels import _tanh

# Triton compiles function bodies by itself, so their annotations and call sites are opaque to mypy.

ROWS, COLUMNS = 64, 128  # of one tile
FORWARD_PARTS = 4  # of the columns
BACKWARD_PARTS = 16  # of the rows
LEAST_RANK = 16  # that tensor cores take


@triton.jit
def _gelu(v):
    return 0.5 * v * (1.0 + _tanh(0.7978845608028654 * (v + 0.044715 * v * v * v)))


@triton.jit
def _gelu_slope(v):
    t = _tanh(0.7978845608028654 * (v + 0.044715 * v * v * v))
    inner = 0.7978845608028654 * (1.0 + 3 * 0.044715 * v * v)
    return 0.5 * (1.0 + t) + 0.5 * v * (1.0 - t * t) * inner


@triton.jit
def _forward_kernel(
    x, stride, a, a_stride, out, parts, rows, whole, width, tiles, rank, GATED: tl.constexpr,
    RANK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (place < rows)[:, None]
    row = tl.program_id(2).to(tl.int64) * rows + place
    a += tl.program_id(2).to(tl.int64) * a_stride
    of = tl.arange(0, RANK)
    total = tl.zeros((ROWS, RANK), tl.float32)
    first = tl.program_id(1) * tiles
    for tile in range(first, first + tiles):
        column = tile * COLUMNS + tl.arange(0, COLUMNS)
        known = column < width
        mask = inside & known[None, :]
        at = x + row[:, None] * stride + column[None, :]
        v = tl.load(at, mask=mask, other=0.0).to(tl.float32)
        if GATED:
            up = tl.load(at + width, mask=mask, other=0.0).to(tl.float32)
            act = v * tl.sigmoid(v) * up
        else:
            act = _gelu(v)
        act = act.to(out.dtype.element_ty)
        tl.store(out + row[:, None] * width + column[None, :], act, mask=mask)
        w = tl.load(
            a + of[None, :] * width + column[:, None],
            mask=known[:, None] & (of < rank)[None, :],
            other=0.0,
        )
        total = tl.dot(act, w, total)
    at = parts + (tl.program_id(1).to(tl.int64) * whole + row)[:, None] * rank + of[None, :]
    tl.store(at, total, mask=inside & (of < rank)[None, :])


def activate(x: Tensor, a: Tensor, *, gated: bool) -> tuple[Tensor, Tensor]:
    """The activation of ``x`` and its product with ``a`` (rank, width) transposed.

    ``x`` is (tokens, width), rows may be strided, under GELU's tanh form; or, ``gated``,
    (tokens, 2 * width) under silu(first half) times the other.
    """
    plans, rank, width = (1, *a.shape) if a.ndim == 2 else a.shape
    whole = len(x)
    rows = whole // plans
    out = torch.empty((whole, width), dtype=x.dtype, device=x.device)
    count = min(FORWARD_PARTS, triton.cdiv(width, COLUMNS))
    tiles = triton.cdiv(triton.cdiv(width, COLUMNS), count)
    parts = torch.empty((count, whole, rank), dtype=torch.float32, device=x.device)
    _forward_kernel[(triton.cdiv(rows, ROWS), count, plans)](
        x, x.stride(0), a, a.stride(0), out, parts, rows, whole, width, tiles, rank, GATED=gated,
        RANK=max(LEAST_RANK, triton.next_power_of_2(rank)), ROWS=ROWS, COLUMNS=COLUMNS,
        num_warps=8,
    )  # fmt: skip
    return out, parts.sum(0).to(x.dtype).view(*a.shape[:-2], rows, rank)


@triton.jit
def _backward_kernel(
    x, stride, slope, low_slope, parts, rows, width, tiles, rank, GATED: tl.constexpr,
    RANK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    known = (column < width)[None, :]
    of = tl.arange(0, RANK)
    total = tl.zeros((COLUMNS, RANK), tl.float32)
    first = tl.program_id(1) * tiles
    for tile in range(first, first + tiles):
        place = tile * ROWS + tl.arange(0, ROWS)
        inside = (place < rows)[:, None]
        row = tl.program_id(2).to(tl.int64) * rows + place
        mask = inside & known
        at = x + row[:, None] * stride + column[None, :]
        v = tl.load(at, mask=mask, other=0.0).to(tl.float32)
        at_slope = slope + row[:, None] * width + column[None, :]
        g = tl.load(at_slope, mask=mask, other=0.0).to(tl.float32)
        if GATED:
            up = tl.load(at + width, mask=mask, other=0.0).to(tl.float32)
            s = tl.sigmoid(v)
            act = v * s * up
            change = g * up * s * (1.0 + v * (1.0 - s))
            tl.store(at + width, (g * v * s).to(x.dtype.element_ty), mask=mask)
        else:
            act = _gelu(v)
            change = g * _gelu_slope(v)
        tl.store(at, change.to(x.dtype.element_ty), mask=mask)
        low = tl.load(
            low_slope + row[:, None] * rank + of[None, :],
            mask=inside & (of < rank)[None, :],
            other=0.0,
        )
        total = tl.dot(tl.trans(act.to(low.dtype)), low, total)
    plan = tl.program_id(1) * tl.num_programs(2) + tl.program_id(2)
    at = parts + (plan.to(tl.int64) * width + column)[:, None] * rank + of[None, :]
    tl.store(at, total, mask=(column < width)[:, None] & (of < rank)[None, :])


def activate_back_(x: Tensor, slope: Tensor, low_slope: Tensor, *, gated: bool) -> Tensor:
    """Turn ``x`` into its gradient, given ``slope`` of the output; return the gradient of ``a``.

    As `activate`; ``low_slope`` is the gradient of its product with ``a``. The result is
    (rank, width), or (plans, rank, width), in float32.
    """
    plans = 1 if low_slope.ndim == 2 else len(low_slope)
    (whole, width), rank = slope.shape, low_slope.shape[-1]
    rows = whole // plans
    count = min(triton.cdiv(BACKWARD_PARTS, plans), triton.cdiv(rows, ROWS))
    tiles = triton.cdiv(triton.cdiv(rows, ROWS), count)
    parts = torch.empty((count, plans, width, rank), dtype=torch.float32, device=x.device)
    _backward_kernel[(triton.cdiv(width, COLUMNS), count, plans)](
        x, x.stride(0), slope, low_slope.contiguous(), parts, rows, width, tiles, rank,
        GATED=gated, RANK=max(LEAST_RANK, triton.next_power_of_2(rank)), ROWS=ROWS,
        COLUMNS=COLUMNS, num_warps=8,
    )  # fmt: skip
    return parts.sum(0).transpose(1, 2).view(*low_slope.shape[:-2], rank, width)


@triton.jit
def _add_kernel(
    y, stride, x, low, b, b_stride, rows, width, rank, RANK: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row = tl.program_id(2).to(tl.int64) * rows + place
    b += tl.program_id(2).to(tl.int64) * b_stride
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    of = tl.arange(0, RANK)
    mask = (place < rows)[:, None] & (column < width)[None, :]
    of_low = tl.load(
        low + row[:, None] * rank + of[None, :],
        mask=(place < rows)[:, None] & (of < rank)[None, :],
        other=0.0,
    )
    of_b = tl.load(
        b + column[None, :] * rank + of[:, None],
        mask=(column < width)[None, :] & (of < rank)[:, None],
        other=0.0,
    )
    at = y + row[:, None] * stride + column[None, :]
    total = tl.dot(of_low, of_b, tl.load(at, mask=mask, other=0.0).to(tl.float32))
    at_x = x + row[:, None] * width + column[None, :]
    total += tl.load(at_x, mask=mask, other=0.0).to(tl.float32)
    tl.store(at, total.to(y.dtype.element_ty), mask=mask)


def add_low_(y: Tensor, low: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """Add ``low`` bᵀ and ``x`` to ``y``: (tokens, width), whose rows may be strided.

    ``low`` is (tokens, rank), ``b`` (width, rank), both contiguous, ``x`` like ``y`` but
    contiguous; with several plans ``low`` is (plans, tokens of each, rank) and so on.
    """
    plans = 1 if b.ndim == 2 else len(b)
    (whole, width), rank = y.shape, low.shape[-1]
    rows = whole // plans
    _add_kernel[(triton.cdiv(rows, ROWS), triton.cdiv(width, COLUMNS), plans)](
        y, y.stride(0), x, low, b, b.stride(0), rows, width, rank,
        RANK=max(LEAST_RANK, triton.next_power_of_2(rank)), ROWS=ROWS, COLUMNS=COLUMNS,
        num_warps=8,
    )  # fmt: skip
    return y
