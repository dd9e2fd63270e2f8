"""Gauges: current and peak memory of this process and of its GPU."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psutil

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
PEAK_LINE = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)


class HostGauge:
    """Resident memory of this process, with its peak since :meth:`reset`.

    Linux keeps a peak of its own (``VmHWM``), which misses nothing; where it can be reset
    (``/proc/self/clear_refs``) it is used beside the samples.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._kernel_peak = False
        self._sampled = 0

    def resident_bytes(self) -> int:
        """Resident memory now."""
        return int(self._process.memory_info().rss)

    def reset(self) -> None:
        """Forget the peak."""
        self._sampled = 0
        self._kernel_peak = _reset_kernel_peak()

    def sample(self) -> None:
        """Take the present value into the peak."""
        self._sampled = max(self._sampled, self.resident_bytes())

    def peak_bytes(self) -> int:
        """Largest value since the reset."""
        peak = _kernel_peak_bytes() if self._kernel_peak else None
        return max(self._sampled, peak or 0)


def _reset_kernel_peak() -> bool:
    """Set ``VmHWM`` to the present resident size; False where the system does not let us."""
    try:
        CLEAR_REFS.write_text("5", encoding="ascii")
    except OSError:
        return False
    peak = _kernel_peak_bytes()
    # A sandboxed kernel may take the write and do nothing: believe only a peak that came down.
    return peak is not None and peak <= psutil.Process().memory_info().rss + (16 << 20)


def _kernel_peak_bytes() -> int | None:
    try:
        found = PEAK_LINE.search(STATUS.read_text(encoding="ascii", errors="replace"))
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


class CudaGauge:
    """Memory of torch's current CUDA device: by torch's allocator, and of the whole device (NVML).

    Without NVML the whole-device figures are None.
    """

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda
        self.peak_device_bytes: int | None = None
        self.handle: Any = nvml_handle(str(torch.cuda.get_device_properties(0).uuid))

    def reset(self) -> None:
        """Forget the peaks."""
        self.wait()
        self._cuda.reset_peak_memory_stats()
        self.peak_device_bytes = None

    def wait(self) -> None:
        """Until the device has done its queued work; a device that failed has none."""
        import torch

        try:
            self._cuda.synchronize()
        except torch.AcceleratorError:
            return  # the phase itself has raised it, or the next use of the device will

    def sample(self) -> None:
        """Take the device's memory in use into its peak."""
        used = device_bytes(self.handle)
        if used is not None:
            self.peak_device_bytes = max(self.peak_device_bytes or 0, used)

    def allocated_bytes(self) -> int:
        """Bytes in live tensors now."""
        return int(self._cuda.memory_allocated())

    def peak_allocated_bytes(self) -> int:
        """Most bytes in live tensors since the reset."""
        return int(self._cuda.max_memory_allocated())

    def peak_reserved_bytes(self) -> int:
        """Most bytes that torch held from the driver since the reset."""
        return int(self._cuda.max_memory_reserved())


def nvml_handle(uuid: str) -> Any:
    """NVML's handle of the device with torch's ``uuid``, the first device, or None without NVML."""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except pynvml.NVMLError:  # a MIG slice has another kind of name
            return pynvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError:
        return None


def device_bytes(handle: Any) -> int | None:
    """Memory of the device in use by everyone, or None."""
    import pynvml

    if handle is None:
        return None
    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    except pynvml.NVMLError:
        return None
