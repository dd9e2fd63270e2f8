"""Kernels that compute an activation with the adapter's products, against separate operations."""

from __future__ import annotations

from tests.triton_interpreter import interpret, needs_triton

CODE = """
import torch
from harness.quantize import float8, float8_kernels
from harness.train.stream import fused, ops

torch.manual_seed(0)
rows, width, rank = 150, 300, 8
close = torch.testing.assert_close
for gated in (False, True):
    x = torch.randn(rows, 2 * width) if gated else torch.randn(rows, 40 + width)[:, 40:]
    a, slope = torch.randn(rank, width), torch.randn(rows, width)
    low_slope = torch.randn(rows, rank)
    act, back = (ops.silu_mul, ops.silu_mul_back_) if gated else (ops.gelu, ops.gelu_back_)
    wanted = act(x)
    made, low = fused.activate(x, a, gated=gated)
    close(made, wanted, atol=1e-5, rtol=1e-5)
    close(low, wanted @ a.t(), atol=1e-3, rtol=1e-4)
    expected, used = x.clone(), slope.clone()
    back(expected, used)
    gradient = fused.activate_back_(x, slope, low_slope, gated=gated)
    close(x, expected, atol=1e-5, rtol=1e-5)
    close(gradient, low_slope.t() @ wanted, atol=1e-3, rtol=1e-4)
    plans, each = 3, rows // 3
    several = torch.randn(plans, rank + 2, width)[:, :rank]  # a view, as of a bank
    x = torch.randn(rows, width * (1 + gated))
    wanted = act(x)
    made, low = fused.activate(x, several, gated=gated)
    close(low, wanted.view(plans, each, width) @ several.transpose(1, 2), atol=1e-3, rtol=1e-4)
    low_slope = low_slope.view(plans, each, rank)
    gradient = fused.activate_back_(x, slope, low_slope, gated=gated)
    of_each = low_slope.transpose(1, 2) @ wanted.view(plans, each, width)
    close(gradient, of_each, atol=1e-3, rtol=1e-4)
y, other = torch.randn(rows, width), torch.randn(rows, width)
low, b = torch.randn(rows, rank), torch.randn(width, rank)
wanted = y + other + low @ b.t()
close(fused.add_low_(y, low, b, other), wanted, atol=1e-5, rtol=1e-5)
low, b = low.view(plans, each, rank), torch.randn(plans, width + 9, rank)[:, :width]
wanted = y + other + (low @ b.transpose(1, 2)).view(rows, width)
close(fused.add_low_(y, low, b, other), wanted, atol=1e-5, rtol=1e-5)
x = torch.randn(30, 70) * torch.randn(30, 1).exp()
codes, scales = torch.empty(30, 70, dtype=float8.CODES), torch.empty(30, 1)
float8_kernels.quantize_rows(x, codes, scales, float8.LARGEST, float8.SMALLEST)
assert torch.equal(scales, float8.rows_to_float8(x)[1])
"""


@needs_triton
def test_kernels_compute_what_separate_operations_do() -> None:
    interpret(CODE)
