"""Device: what the planned run will run on, found out without importing torch."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from harness import numbers
from harness.errors import UserError
from harness.spec.schema import Frozen

FLOAT8_CAPABILITY = (8, 9)  # from this compute capability on, GPUs multiply eight-bit floats


class Device(Frozen):
    """The device of a plan. Part of the fingerprint, since results differ between devices."""

    kind: Literal["cpu", "cuda"]
    name: str
    memory_bytes: int | None = Field(default=None, description="of the GPU, or of the machine")
    bfloat16: bool = Field(description="fast in hardware: AVX512-BF16, AMX, SVE-BF16, Ampere on")
    float8: bool = Field(default=False, description="products of eight-bit floats: Ada on")
    threads: int | None = Field(default=None, description="torch threads; CPU only")

    def told_from(self, *others: Device) -> str:
        """The name, with the first thing in which each other one of the same name differs.

        What costs depend on (``costs_like``) comes before what they do not.
        """
        parts = self._parts()
        named = {
            next((key for key in parts if getattr(one, key) != getattr(self, key)), "")
            for one in others
            if one.name == self.name
        }
        said = " and ".join(text for key, text in parts.items() if key in named)
        return f"{self.name} with {said}" if said else self.name

    def _parts(self) -> dict[str, str]:
        """In words, by field, what tells it from another device of its name; the telling first."""
        count = "an unknown number of" if self.threads is None else self.threads
        return {
            "threads": f"{count} {'thread' if count == 1 else 'threads'}",
            "bfloat16": f"{'fast' if self.bfloat16 else 'slow'} bfloat16",
            "memory_bytes": numbers.size(self.memory_bytes),
            "float8": f"{'' if self.float8 else 'no '}eight-bit products",
        }

    def costs_like(self, other: Device) -> bool:
        """Whether times, memory and energy measured on both can be set against each other."""
        told = [(one.kind, one.name, one.threads, one.bfloat16) for one in (self, other)]
        return told[0] == told[1]


DeviceChoice = Literal["auto", "cpu", "cuda"]


def detect_device(kind: DeviceChoice = "auto") -> Device:
    """The first visible NVIDIA GPU (unless ``kind`` is "cpu"), else the CPU (unless it is "cuda").

    Raises:
        UserError: "cuda" was asked for and there is no NVIDIA GPU.
    """
    if kind != "cpu":
        gpu = _first_gpu()
        if gpu is not None:
            return gpu
    if kind == "cuda":
        raise UserError(
            "no NVIDIA GPU can be used here",
            where="--device cuda",
            hint="run python -m harness doctor to see what this machine has",
        )
    return _cpu()


def _cpu() -> Device:
    flags = _cpu_flags()
    return Device(
        kind="cpu",
        name=cpu_name(),
        memory_bytes=machine_memory_bytes(),
        bfloat16=bool(flags & {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}),
        threads=usable_threads(),
    )


def usable_cores() -> int:
    """Cores this process may use (its affinity mask where the system has one)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# What a user sets to have a program compute with fewer threads; PyTorch follows the first of them.
THREAD_LIMITS = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")


def usable_threads() -> int:
    """Threads that PyTorch computes with here: a core each, unless the user has set fewer."""
    found = (os.environ.get(name, "").split(",")[0].strip() for name in THREAD_LIMITS)
    wanted = next((int(text) for text in found if text.isdecimal() and int(text)), None)
    return usable_cores() if wanted is None else min(wanted, usable_cores())


def _cpu_flags() -> set[str]:
    flags: set[str] = set()
    for line in _cpuinfo():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags.update(value.split())
            break
    return flags


def cpu_name() -> str:
    """The processor's model name, or the machine type where it has none."""
    for line in _cpuinfo():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def machine_memory_bytes() -> int | None:
    """Physical memory, or null where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def first_visible(visible: str | None) -> int | str | None:
    """What ``CUDA_VISIBLE_DEVICES`` makes the first GPU: index, start of a UUID, null for none.

    As CUDA reads it: an entry that is neither hides itself and all that follow. Its indexes are
    NVML's only where all GPUs are alike or ``CUDA_DEVICE_ORDER`` is ``PCI_BUS_ID``.
    """
    if visible is None:
        return 0
    first = visible.split(",")[0].strip()
    if first.isdecimal():
        return int(first)
    return first if first.startswith(("GPU-", "MIG-")) else None


VISIBLE = "CUDA_VISIBLE_DEVICES"


def nth_visible(visible: str | None, index: int) -> str | None:
    """The entry of ``CUDA_VISIBLE_DEVICES`` for the GPU at ``index``; null where there is none."""
    if visible is None:
        return str(index)
    names = [name.strip() for name in visible.split(",")]
    return names[index] if index < len(names) else None


def visible_places(visible: str | None, uuids: Sequence[str]) -> list[int | str]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` leaves, in its order, of those with ``uuids``.

    An index of ``uuids``, or the UUID of a slice of a GPU (MIG). As CUDA reads it: an entry that
    names nothing hides itself and all that follow.
    """
    if visible is None:
        return list(range(len(uuids)))
    found: list[int | str] = []
    for entry in visible.split(","):
        asked = first_visible(entry)
        place: int | str | None = asked
        if isinstance(asked, int):
            place = asked if asked < len(uuids) else None
        elif asked is not None and not asked.startswith("MIG-"):
            whole = (index for index, uuid in enumerate(uuids) if uuid.startswith(asked))
            place = next(whole, None)
        if place is None:
            break
        found.append(place)
    return found


@contextmanager
def _visible_handles() -> Iterator[list[Any]]:
    """NVML's handles of the visible GPUs, in CUDA's order; none where there is no driver."""
    if not Path("/dev/nvidiactl").exists():
        yield []
        return
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield []
        return
    try:
        yield _handles(pynvml)
    finally:
        pynvml.nvmlShutdown()


def _handles(nvml: Any) -> list[Any]:
    every = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    uuids = [str(nvml.nvmlDeviceGetUUID(handle)) for handle in every]
    found: list[Any] = []
    for place in visible_places(os.environ.get(VISIBLE), uuids):
        try:
            one = every[place] if isinstance(place, int) else nvml.nvmlDeviceGetHandleByUUID(place)
        except nvml.NVMLError:  # there is no such slice, which hides those that follow
            break
        found.append(one)
    return found


def visible_gpus() -> list[str]:
    """Names of the NVIDIA GPUs that a process may use here, in its order; empty without any."""
    with _visible_handles() as handles:
        if not handles:
            return []
        import pynvml

        return [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]


def visible_capabilities() -> list[tuple[int, int]]:
    """Compute capabilities of the GPUs that a process may use here, in its order."""
    with _visible_handles() as handles:
        if not handles:
            return []
        import pynvml

        found = (pynvml.nvmlDeviceGetCudaComputeCapability(handle) for handle in handles)
        return [(int(major), int(minor)) for major, minor in found]


def _first_gpu() -> Device | None:
    with _visible_handles() as handles:
        return _described(handles[0]) if handles else None


def _described(handle: Any) -> Device | None:
    import pynvml

    try:
        capability = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        return Device(
            kind="cuda",
            name=str(pynvml.nvmlDeviceGetName(handle)),
            memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
            bfloat16=tuple(capability) >= (8, 0),
            float8=tuple(capability) >= FLOAT8_CAPABILITY,
        )
    except pynvml.NVMLError:
        return None
