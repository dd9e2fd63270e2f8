"""Forkable: what would keep a fork of this process from carrying out a run: devices and threads."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.spec.device import visible_capabilities

# Threads that their library ends and begins again around a fork.
HARMLESS = ("jemalloc_bg_thd",)
DEVICES = ("/dev/nvidia", "/dev/dri", "/dev/kfd")


@contextmanager
def devices_asked_of_the_driver(capabilities: Sequence[tuple[int, int]]) -> Iterator[None]:
    """Let libraries that ask for GPUs while they are imported be answered without CUDA.

    bitsandbytes asks for compute capabilities to choose its library, which would initialize CUDA
    here, and no fork can initialize it again.
    """
    torch: Any = import_module("torch")
    if not torch.backends.cuda.is_built() or torch.version.cuda is None:
        yield
        return
    before = {name: getattr(torch.cuda, name) for name in CudaAnswers.ANSWERS}
    driver = CudaAnswers(capabilities)
    for name in before:
        setattr(torch.cuda, name, getattr(driver, name))
    try:
        yield
    finally:
        for name, own in before.items():
            setattr(torch.cuda, name, own)


def asked_of_a_fork() -> list[tuple[int, int]]:
    """Compute capabilities of the visible GPUs, as a fork that ends has found them.

    The driver's libraries begin threads and open devices, none of which this process may have.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            with os.fdopen(write, "w") as file:
                json.dump(visible_capabilities(), file)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        told = file.read()
    os.waitpid(pid, 0)
    return [(int(major), int(minor)) for major, minor in json.loads(told or "[]")]


class CudaAnswers:
    """Answers to questions that torch.cuda answers with CUDA, from what NVML has said."""

    ANSWERS = ("is_available", "device_count", "get_device_capability")

    def __init__(self, capabilities: Sequence[tuple[int, int]]) -> None:
        """Answer for GPUs of these compute capabilities, in CUDA's order."""
        self._capabilities = tuple(capabilities)

    def is_available(self) -> bool:
        """Whether there is a GPU to be used."""
        return bool(self._capabilities)

    def device_count(self) -> int:
        """How many."""
        return len(self._capabilities)

    def get_device_capability(self, device: Any = None) -> tuple[int, int]:
        """Compute capability of a device: an index, ``torch.cuda.device`` or ``torch.device``."""
        index = getattr(device, "idx", getattr(device, "index", device))
        return self._capabilities[index if isinstance(index, int) and index >= 0 else 0]


def unfit() -> str | None:
    """Why no run can be forked from this process: it has opened a device, or has threads."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "CUDA has been initialized"
    opened = open_devices()
    if opened:
        return f"a device is open: {', '.join(opened)}"
    if torch is not None and _is_bad_in_a_fork(torch):
        return "CUDA has been asked for devices, and a fork cannot ask again"
    others = other_threads()
    return f"threads run that a fork would lack: {', '.join(others)}" if others else None


def open_devices() -> list[str]:
    """Device files that this process has open."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        try:
            target = str(path.readlink())
        except OSError:
            continue
        if target.startswith(DEVICES):
            found.add(target)
    return sorted(found)


def other_threads() -> list[str]:
    """Names of threads beside this one that a fork would need and not have."""
    names = (
        (path / "comm").read_text(encoding="utf-8", errors="replace").strip()
        for path in Path("/proc/self/task").iterdir()
        if path.name != str(os.getpid())
    )
    return sorted(name for name in names if name not in HARMLESS)


def _is_bad_in_a_fork(torch: Any) -> bool:
    """Ask a fork whether torch would refuse to use CUDA there."""
    pid = os.fork()
    if pid == 0:
        os._exit(int(torch.cuda._is_in_bad_fork()))  # noqa: SLF001 - there is no public question
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
