"""Trial: whether kernels that replace separate operations give the same on this machine."""

from __future__ import annotations

from functools import cache

import torch

from harness.train.stream import ops

ROWS, WIDTH, RANK = 64, 256, 16
APART = 0.02  # as a share of the largest value: 16-bit results differ by an eighth of it


@cache
def fused_failure(dtype: torch.dtype) -> str | None:
    """Why activations and adapters' products stay apart on the present GPU; None: they need not.

    Asked once a process, of a small example; the kernels that it compiles are those of training.
    """
    try:
        gap = max(_forward_gap(dtype), _backward_gap(dtype), _sum_gap(dtype))
    except Exception as error:  # noqa: BLE001 - whatever it is, the separate kernels remain
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None if gap < APART else f"they differ by {gap:.3f} of the largest value"


def _random(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    numbers = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=numbers).to("cuda", dtype)


def _gap(found: torch.Tensor, wanted: torch.Tensor) -> float:
    difference = (found.float() - wanted.float()).abs().max() / wanted.float().abs().max()
    return float(difference.nan_to_num(nan=torch.inf))


def _forward_gap(dtype: torch.dtype) -> float:
    a = _random(RANK, WIDTH, dtype=dtype)
    gaps = []
    for gated in (False, True):
        x = _random(ROWS, WIDTH * (2 if gated else 1), dtype=dtype)
        wanted = ops.silu_mul(x) if gated else ops.gelu(x)
        found, low = ops.activate(x, a, gated=gated)
        gaps += [_gap(found, wanted), _gap(low, wanted @ a.t())]
    return max(gaps)


def _backward_gap(dtype: torch.dtype) -> float:
    slope, low_slope = _random(ROWS, WIDTH, dtype=dtype), _random(ROWS, RANK, dtype=dtype)
    gaps = []
    for gated in (False, True):
        x = _random(ROWS, WIDTH * (2 if gated else 1), dtype=dtype)
        wanted, h = x.clone(), slope.clone()
        (ops.silu_mul_back_ if gated else ops.gelu_back_)(wanted, h)
        gradient = ops.activate_back_(x, slope, low_slope, gated=gated)
        gaps += [_gap(x, wanted), _gap(gradient, low_slope.t() @ h)]
    return max(gaps)


def _sum_gap(dtype: torch.dtype) -> float:
    y, other = (_random(ROWS + more, WIDTH, dtype=dtype)[:ROWS] for more in (0, 1))
    low, b = _random(ROWS, RANK, dtype=dtype), _random(WIDTH, RANK, dtype=dtype)
    wanted = y.float() + other.float() + low.float() @ b.float().t()
    return _gap(ops.add_low_(y, low, b, other), wanted)
