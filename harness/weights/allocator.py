"""Allocator: how the C library keeps memory that loading has freed."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

# numbers of glibc's malloc.h
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
APART = 1 << 18  # bytes: below, thousands of small mappings would cost more than they save
LARGEST = 32 << 20  # bytes: what glibc's threshold grows to by itself on 64 bits


@contextmanager
def large_blocks_apart() -> Iterator[None]:
    """Within, a large block that is freed goes back to the system at once.

    Otherwise glibc keeps such blocks for later and puts small ones, a packed weight for example,
    into them. The next unquantized weight then fits nowhere, and loading a model layer by layer
    may take as much memory as the whole unquantized model. Afterwards blocks up to 32 MiB are kept
    again, as training likes it: glibc's own threshold has grown so far by then in most processes,
    and cannot be asked for. Other C libraries are left as they are, and so is glibc where the
    environment sets one of its thresholds: it moves none of them by itself then.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        set_option = None
    if set_option is None or _is_set():
        yield
        return
    set_option(MMAP_THRESHOLD, APART)
    try:
        yield
    finally:
        set_option(MMAP_THRESHOLD, LARGEST)
        set_option(TRIM_THRESHOLD, 2 * LARGEST)


def _is_set() -> bool:
    """Whether the environment sets a threshold, by its old name or its new one."""
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return any(
        f"MALLOC_{name.upper()}_THRESHOLD_" in os.environ
        or f"glibc.malloc.{name}_threshold" in tunables
        for name in ("mmap", "trim")
    )
