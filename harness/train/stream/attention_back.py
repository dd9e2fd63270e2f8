"""Gradients of attention on a processor, written out as products of 16-bit matrices.

Torch's own kernel for them multiplies at a sixth of what a processor's matrix products reach. Here
the products are batched over the heads that share keys, and what lies above the diagonal is left
out block by block.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 128  # queries at a time
# What one conversation needs beside its gradients grows with its tokens, like the weights of a
# block, which are to stay in a processor's cache: longer ones are left to torch's kernel.
LONGEST = 1024
BESIDE = 8  # columns beside the channels, so that rows stay aligned; two of them are used


def fits(q: Tensor) -> bool:
    """Whether queries (tokens, heads, size) of one conversation are taken."""
    return q.dtype == torch.bfloat16 and len(q) <= LONGEST


def attend_back(
    slope: Tensor, qkv: tuple[Tensor, Tensor, Tensor], out: Tensor, log_sum: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v of one conversation under causal attention.

    ``slope`` is that of the output ``out``. All are (tokens, heads, size); keys and values may have
    fewer heads. ``log_sum`` (heads, tokens), float32, is of each query's exponentials.

    With S = q kᵀ / √size, weights P = exp(S - log-sum) and D = Σ slope · out of each query:
    dV = Pᵀ slope, dS = P · (slope Vᵀ - D), dq = dS k / √size, dk = dSᵀ q / √size
    (Dao et al., 2022, arXiv 2205.14135).
    Log-sum and D are subtracted within the products, before these are rounded to 16 bits: so the
    largest weights are the most exact ones.
    """
    q, k, v = qkv
    groups, scale = k.shape[1], q.shape[2] ** -0.5
    queries, keys, slopes = (_by_group(x, groups) for x in (q, k, slope))
    sums = _by_group(log_sum.t()[:, :, None], groups)
    totals = _by_group((slope.float() * out).sum(-1, keepdim=True), groups)
    queries_less, slopes_less = _less(queries, sums / scale), _less(slopes, totals)
    keys_beside, values_beside = (
        _beside_ones(x).transpose(1, 2) for x in (keys, _by_group(v, groups))
    )
    q_grad = torch.empty_like(queries)
    k_grad, v_grad = (torch.zeros_like(keys, dtype=torch.float32) for _ in range(2))
    for rows, seen in _blocks(len(q), q.shape[1] // groups):
        weights = _scaled(queries_less[:, rows], keys_beside[:, :, :seen], scale).exp_()
        _leave_out_future_(weights, q.shape[1] // groups)
        inner = torch.bmm(slopes_less[:, rows], values_beside[:, :, :seen]).mul_(weights)
        v_grad[:, :seen] += torch.bmm(weights.transpose(1, 2), slopes[:, rows])
        k_grad[:, :seen] += torch.bmm(inner.transpose(1, 2), queries[:, rows])
        q_grad[:, rows] = _scaled(inner, keys[:, :seen], scale)
    return (
        _by_token(q_grad, q),
        _by_token(k_grad.mul_(scale).to(q.dtype), k),
        _by_token(v_grad.to(q.dtype), v),
    )


def _blocks(tokens: int, copies: int) -> list[tuple[slice, int]]:
    """Blocks of queries: their rows among those of a group, and how many keys they see."""
    starts = range(0, tokens, BLOCK)
    ends = [min(start + BLOCK, tokens) for start in starts]
    return [
        (slice(start * copies, end * copies), end) for start, end in zip(starts, ends, strict=True)
    ]


def _by_group(x: Tensor, groups: int) -> Tensor:
    """(tokens, heads, size) as (groups, tokens * heads of a group, size), token by token."""
    size = x.shape[2]
    apart = x.reshape(len(x), groups, -1, size).transpose(0, 1)
    return apart.reshape(groups, -1, size)


def _by_token(x: Tensor, like: Tensor) -> Tensor:
    """The way back from `_by_group`, to the shape of ``like``."""
    tokens, _, size = like.shape
    return x.view(len(x), tokens, -1, size).transpose(0, 1).reshape(like.shape)


def _scaled(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """Batched product times ``scale``, which is applied before rounding.

    Torch takes a factor only of products that are added to something, here to nothing.
    """
    nothing = left.new_zeros(1, 1, 1)
    return torch.baddbmm(nothing, left, right, beta=0, alpha=scale)


def _leave_out_future_(weights: Tensor, copies: int) -> None:
    """Set weights (groups, queries * copies, keys) of later keys than a query's own to 0.

    The last keys are those of the queries. Exponentials above the diagonal may be infinite.
    """
    groups, rows, keys = weights.shape
    queries = rows // copies
    last = weights.view(groups, queries, copies, keys)[..., keys - queries :]
    future = torch.ones((queries, queries), dtype=torch.bool).triu_(1)
    last.masked_fill_(future[:, None], 0)


def _less(x: Tensor, amount: Tensor) -> Tensor:
    """``x`` with columns that take ``amount`` off each of its products with `_beside_ones`.

    Two 16-bit columns hold about as much of ``amount`` as its products are computed with.
    """
    first = amount.neg().to(x.dtype)
    second = (-amount - first).to(x.dtype)
    unused = x.new_zeros((*x.shape[:2], BESIDE - 2))
    return torch.cat([x, first, second, unused], dim=-1)


def _beside_ones(x: Tensor) -> Tensor:
    shape = x.shape[:2]
    return torch.cat([x, x.new_ones((*shape, 2)), x.new_zeros((*shape, BESIDE - 2))], dim=-1)
