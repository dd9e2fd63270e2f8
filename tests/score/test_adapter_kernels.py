"""Kernels that add an adapter's share, against separate operations."""

from __future__ import annotations

from tests.triton_interpreter import interpret, needs_triton

CODE = """
import torch
from harness.score.adapter_kernels import add_share_

torch.manual_seed(0)
for rows in (1, 3, 70):
    for width, outputs, rank in ((40, 33, 4), (300, 200, 16), (1100, 130, 24)):
        for dtype in (torch.float32, torch.bfloat16):
            x, y = torch.randn(rows, width).to(dtype), torch.randn(rows, outputs).to(dtype)
            down, up = torch.randn(rank, width) / width**0.5, torch.randn(outputs, rank)
            wanted = (y.double() + 0.3 * x.double() @ down.T.double() @ up.T.double()).to(dtype)
            torch.testing.assert_close(add_share_(y, x, down, up, 0.3), wanted)
            again = y.clone()
            assert torch.equal(add_share_(y, x, down, up, 0.3), add_share_(again, x, down, up, 0.3))
"""


@needs_triton
def test_kernels_add_what_separate_operations_add() -> None:
    interpret(CODE)
