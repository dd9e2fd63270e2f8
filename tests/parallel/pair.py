"""Pair: two processes joined by gloo, as torchrun would start them, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from harness.runs.self_test import meeting_place

ROOT = Path(__file__).parents[2]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let this process compute as each of a pair does, whose results it is compared with."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_pair(module: str, *arguments: str, count: int = 2, timeout: int = 1800) -> None:
    """Run ``python -m module arguments`` as ranks 0 and 1; all must end well."""
    with meeting_place(count) as told:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={**os.environ, **told, "RANK": str(rank), "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(count)
        ]
        said = [process.communicate(timeout=timeout)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, "\n".join(said)
