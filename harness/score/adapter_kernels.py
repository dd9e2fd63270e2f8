"""Triton kernels that add LoRA's share to the product of few rows in two launches.

Sums over parts are taken in a fixed order, so that equal inputs give equal bits.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor, float32

# Triton compiles function bodies by itself, so their annotations and call sites are opaque to mypy.

ROWS, COLUMNS = 16, 64  # of one tile
MOST_PARTS = 16  # of the columns, worked on at the same time
WIDE = 128  # outputs of one tile
LEAST_RANK = 16  # that a product of two tiles takes


# What depends on the number of rows is not compiled anew for each.
@triton.jit(do_not_specialize=["rows", "tiles"])
def _down_kernel(
    x, down, parts, rows, width, tiles, rank, RANK: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    of = tl.arange(0, RANK)
    inside, ranked = (row < rows)[:, None], (of < rank)[None, :]
    total = tl.zeros((ROWS, RANK), tl.float32)
    first = tl.program_id(1) * tiles
    for tile in range(first, first + tiles):
        column = tile * COLUMNS + tl.arange(0, COLUMNS)
        known = column < width
        at = x + row[:, None] * width + column[None, :]
        v = tl.load(at, mask=inside & known[None, :], other=0.0).to(tl.float32)
        at = down + of[None, :] * width + column[:, None]
        w = tl.load(at, mask=known[:, None] & ranked, other=0.0)
        total = tl.dot(v, w, total, input_precision="ieee")
    at = parts + (tl.program_id(1).to(tl.int64) * rows + row)[:, None] * rank + of[None, :]
    tl.store(at, total, mask=inside & ranked)


@triton.jit(do_not_specialize=["rows", "count"])
def _up_kernel(
    y, parts, up, scaling, rows, width, count, rank, RANK: tl.constexpr, ROWS: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    of = tl.arange(0, RANK)
    inside, known = (row < rows)[:, None], (column < width)[None, :]
    low = tl.zeros((ROWS, RANK), tl.float32)
    at = parts + row[:, None] * rank + of[None, :]
    for _ in range(count):
        low += tl.load(at, mask=inside & (of < rank)[None, :], other=0.0)
        at += rows.to(tl.int64) * rank
    at = up + column[None, :] * rank + of[:, None]
    w = tl.load(at, mask=known & (of < rank)[:, None], other=0.0)
    at = y + row[:, None] * width + column[None, :]
    wide = tl.load(at, mask=inside & known, other=0.0).to(tl.float32)
    wide += scaling * tl.dot(low, w, input_precision="ieee")
    tl.store(at, wide.to(y.dtype.element_ty), mask=inside & known)


def add_share_(y: Tensor, x: Tensor, down: Tensor, up: Tensor, scaling: float) -> Tensor:
    """Add ``scaling * x @ down.T @ up.T`` to ``y``, computed in float32 and rounded once.

    ``y`` (..., outputs) and ``x`` (..., width) are of any floating dtype, ``down`` (rank, width)
    and ``up`` (outputs, rank) of float32; all are contiguous. It is for few rows: each is read
    again for every part of the columns.
    """
    (rank, width), outputs = down.shape, len(up)
    rows = x.numel() // width
    ranks = max(LEAST_RANK, triton.next_power_of_2(rank))
    row_tiles, columns = triton.cdiv(rows, ROWS), triton.cdiv(width, COLUMNS)
    tiles = triton.cdiv(columns, min(columns, MOST_PARTS))
    count = triton.cdiv(columns, tiles)
    parts = x.new_empty((count, rows, rank), dtype=float32)
    _down_kernel[(row_tiles, count)](
        x, down, parts, rows, width, tiles, rank, RANK=ranks, ROWS=ROWS, COLUMNS=COLUMNS,
    )  # fmt: skip
    _up_kernel[(row_tiles, triton.cdiv(outputs, WIDE))](
        y, parts, up, scaling, rows, outputs, count, rank, RANK=ranks, ROWS=ROWS, WIDE=WIDE,
    )  # fmt: skip
    return y
