"""Triton kernels of float8 products: rows and 4-bit weights to eight bits in one pass."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

# Triton compiles function bodies by itself, so their annotations and call sites are opaque to mypy.


@triton.jit
def _quantize_rows_kernel(
    x, stride, out, scales, width, LARGEST: tl.constexpr, SMALLEST: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask = column < width
    v = tl.load(x + row * stride + column, mask=mask, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(v)), SMALLEST) / LARGEST
    # up to the next power of two
    scale = ((scale.to(tl.int32, bitcast=True) + 0x7FFFFF) & 0x7F800000).to(
        tl.float32, bitcast=True
    )
    v = v / scale
    tl.store(out + row * width + column, v.to(out.dtype.element_ty), mask=mask)
    tl.store(scales + row, scale)


def quantize_rows(x: Tensor, out: Tensor, scales: Tensor, largest: float, smallest: float) -> None:
    """Write the rows of ``x``, which may be strided, into ``out`` and their scales."""
    rows, width = x.shape
    block = triton.next_power_of_2(width)
    warps = 4 if block <= 4096 else 8 if block <= 16384 else 16
    _quantize_rows_kernel[(rows,)](
        x, x.stride(0), out, scales, width, LARGEST=largest, SMALLEST=smallest, BLOCK=block,
        num_warps=warps,
    )  # fmt: skip


@triton.jit
def _nf4_kernel(
    packed, codes, absmax, absmax_codes, absmax_scales, offset, factor, out, stride, rows,
    blocks_per_row, NESTED: tl.constexpr, TURNED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    block = row * blocks_per_row + tl.program_id(1)
    byte_at = block[:, None] * 32 + tl.arange(0, 32)[None, :]
    byte = tl.load(packed + byte_at, mask=inside[:, None], other=0).to(tl.int32)
    if NESTED:
        code = tl.load(absmax + block, mask=inside, other=0).to(tl.int32)
        scale = tl.load(absmax_codes + code)
        scale *= tl.load(absmax_scales + block // 256, mask=inside, other=0.0)
        scale += tl.load(offset)
    else:
        scale = tl.load(absmax + block, mask=inside, other=0.0)
    scale *= tl.load(factor)
    high = tl.load(codes + (byte >> 4)) * scale[:, None]
    low = tl.load(codes + (byte & 15)) * scale[:, None]
    values = tl.interleave(high, low).to(out.dtype.element_ty)
    column = tl.program_id(1).to(tl.int64) * 64 + tl.arange(0, 64)
    if TURNED:
        at = column[:, None] * stride + row[None, :]
        tl.store(out + at, tl.trans(values), mask=inside[None, :])
    else:
        at = row[:, None] * stride + column[None, :]
        tl.store(out + at, values, mask=inside[:, None])


def dequantize_nf4(
    out: Tensor, packed: Tensor, state: Any, factor: Tensor, *, turned: bool
) -> None:
    """Write ``factor`` times the 4-bit weight ``packed`` (blocks of 64) into ``out``.

    ``out`` is (rows, inputs), or (inputs, rows) if ``turned``; its rows may be strided.
    """
    inputs, rows = out.shape if turned else out.shape[::-1]
    nested = state.nested
    _nf4_kernel[(triton.cdiv(rows, 64), inputs // 64)](
        packed, state.code, state.absmax,
        state.state2.code if nested else state.code,
        state.state2.absmax if nested else state.code,
        state.offset if nested else state.code,
        factor, out, out.stride(0), rows, inputs // 64,
        NESTED=nested, TURNED=turned, ROWS=64, num_warps=4,
    )  # fmt: skip


@triton.jit
def _cast_kernel(
    x, x_stride, factor, out, stride, rows, columns, LARGEST: tl.constexpr,
    TURNED: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * SIDE + tl.arange(0, SIDE)
    column = tl.program_id(1).to(tl.int64) * SIDE + tl.arange(0, SIDE)
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    v = tl.load(x + row[:, None] * x_stride + column[None, :], mask=mask, other=0.0)
    v = tl.minimum(tl.maximum(v.to(tl.float32) * tl.load(factor), -LARGEST), LARGEST)
    v = v.to(out.dtype.element_ty)
    if TURNED:
        mask = (column < columns)[:, None] & (row < rows)[None, :]
        tl.store(out + column[:, None] * stride + row[None, :], tl.trans(v), mask=mask)
    else:
        tl.store(out + row[:, None] * stride + column[None, :], v, mask=mask)


def cast(out: Tensor, x: Tensor, factor: Tensor, largest: float, *, turned: bool) -> None:
    """Write ``factor`` times the matrix ``x`` into ``out``, or into its transpose if ``turned``.

    Rows of both may be strided.
    """
    rows, columns = x.shape
    grid = (triton.cdiv(rows, 64), triton.cdiv(columns, 64))
    _cast_kernel[grid](
        x, x.stride(0), factor, out, out.stride(0), rows, columns,
        LARGEST=largest, TURNED=turned, SIDE=64,
    )  # fmt: skip
