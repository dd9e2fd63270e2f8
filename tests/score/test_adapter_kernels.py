"""Kernels that add an adapter's share, against separate operations.

They run in Triton's interpreter, in a process of their own since it is chosen when Triton is read.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_kernels_add_what_separate_operations_add() -> None:
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", CODE], env=env, check=True)
