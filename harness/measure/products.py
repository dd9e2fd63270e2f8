"""Products: how fast this machine's processor can multiply matrices, tried for a moment."""

from __future__ import annotations

import time

import torch

from harness.spec.device import usable_threads

SIZE = 512  # of square matrices: a product takes a millisecond, which other work rarely interrupts
MOMENT = 0.2  # seconds for each type


def products_per_second() -> float:
    """Floating-point operations a second of matrix products on all threads, in the faster type.

    The fastest product of one thread times the threads, so other work beside it hardly matters.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fastest = max(_rate(dtype) for dtype in (torch.float32, torch.bfloat16))
    finally:
        torch.set_num_threads(threads)
    return fastest * usable_threads()


def _rate(dtype: torch.dtype) -> float:
    """The fastest of the products that a moment has room for, at least one."""
    left, right = (torch.ones(SIZE, SIZE, dtype=dtype) for _ in range(2))
    shortest, until = float("inf"), time.perf_counter() + MOMENT
    torch.mm(left, right)
    while shortest == float("inf") or time.perf_counter() < until:
        began = time.perf_counter()
        torch.mm(left, right)
        shortest = min(shortest, time.perf_counter() - began)
    return 2 * SIZE**3 / shortest
