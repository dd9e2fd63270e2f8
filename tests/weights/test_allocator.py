"""What the C library keeps of freed memory: nothing large while a base is loaded."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests.weights.peak import plain_allocator

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="how glibc keeps what is freed"
)

# Three times: blocks of 8 MiB with small ones between them, of which the large ones are freed.
ROUNDS = """
import ctypes
from harness.weights.allocator import large_blocks_apart
from tests.weights.peak import own_bytes

LARGE, SMALL, COUNT = 8 << 20, 64 << 10, 4
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p

def block(size):
    made = ctypes.c_void_p(library.malloc(ctypes.c_size_t(size)))
    ctypes.memset(made, 1, size)
    return made

def freed():
    pairs = [(block(LARGE), block(SMALL)) for _ in range(COUNT)]
    before = own_bytes()
    for large, _ in pairs:
        library.free(large)
    went_back = before - own_bytes()
    for _, small in pairs:
        library.free(small)
    return "back" if went_back > LARGE * COUNT // 2 else "kept"

# Small blocks lie between the large ones if no gap among what Python has freed would take them.
gaps = [block(SMALL) for _ in range(256)]
freed()  # after this glibc keeps blocks of this size, if it may choose
before = freed()
with large_blocks_apart():
    within = freed()
print(before, within, freed())
"""


def fates(**environment: str) -> list[str]:
    """What becomes of large blocks that are freed before, within and after."""
    done = subprocess.run(
        [sys.executable, "-c", ROUNDS],
        env=plain_allocator() | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_large_blocks_go_back_at_once_within() -> None:
    assert fates() == ["kept", "back", "kept"]


@pytest.mark.parametrize(
    ("name", "value", "fate"),
    [
        ("MALLOC_MMAP_THRESHOLD_", "33554432", "kept"),
        ("MALLOC_TRIM_THRESHOLD_", "131072", "back"),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=33554432", "kept"),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072", "back"),
    ],
)
def test_what_the_environment_sets_is_left_alone(name: str, value: str, fate: str) -> None:
    """With a threshold of its own, glibc goes on to place blocks as it began."""
    assert fates(**{name: value}) == [fate] * 3
