"""Meter: what each phase of a run costs in time, memory and energy."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from harness.measure.energy import EnergyCounter, energy_counter
from harness.measure.gauges import CudaGauge, HostGauge
from harness.records.record import PhaseCost, PhaseName
from harness.spec.device import Device

SAMPLE_SECONDS = 0.02


class Meter:
    """Measures phases of this process, one after another.

    Around each phase the allocator's peaks are reset and what the phase before left in caches is
    given back, so that a peak belongs to its phase. Work queued on a GPU is waited for before the
    clock is read.
    """

    def __init__(self, device: Device, *, shared: bool = False, leads: bool = True) -> None:
        """Measure on ``device``; a GPU is looked up when the first phase begins.

        On a device that is ``shared`` with other runs, energy and the memory of the whole device
        are theirs too, so both stay unknown. Of several processes on one processor, only the one
        that ``leads`` reads its energy.
        """
        self._device = device
        self._shared = shared
        self._leads = leads
        self._costs: list[PhaseCost] = []
        self._host = HostGauge()
        self._cuda: CudaGauge | None = None
        self._energy: EnergyCounter | None = None
        self._found = False

    @property
    def costs(self) -> tuple[PhaseCost, ...]:
        """Every finished phase in order, those that ended with an error included."""
        return tuple(self._costs)

    def live(self) -> dict[str, float]:
        """Current memory for a progress display: ``allocated_bytes`` or ``resident_bytes``."""
        if self._cuda is not None:
            return {"allocated_bytes": float(self._cuda.allocated_bytes())}
        return {"resident_bytes": float(self._host.resident_bytes())}

    @contextmanager
    def phase(self, name: PhaseName) -> Iterator[None]:
        """Measure the body as phase ``name``. A name may come again; each time is a cost."""
        self._find_gauges()
        _give_back()
        self._host.reset()
        if self._cuda is not None:
            self._cuda.reset()
        started = time.perf_counter()
        with _Sampler(self._host, self._cuda, self._energy) as sampler:
            try:
                yield
            finally:
                if self._cuda is not None:
                    self._cuda.wait()
                seconds = time.perf_counter() - started
                sampler.stop()
                self._costs.append(self._cost(name, seconds, sampler))

    def _find_gauges(self) -> None:
        """Once, inside the child: NVML and RAPL open files that a fork would share."""
        if self._found:
            return
        self._found = True
        if self._device.kind == "cuda":
            self._cuda = CudaGauge()
        if not self._shared and (self._leads or self._cuda is not None):
            self._energy = energy_counter(self._cuda)

    def _cost(self, name: PhaseName, seconds: float, sampler: _Sampler) -> PhaseCost:
        cuda = self._cuda
        return PhaseCost(
            name=name,
            seconds=seconds,
            peak_resident_bytes=self._host.peak_bytes(),
            peak_allocated_bytes=cuda.peak_allocated_bytes() if cuda else None,
            peak_reserved_bytes=cuda.peak_reserved_bytes() if cuda else None,
            peak_device_bytes=cuda.peak_device_bytes if cuda and not self._shared else None,
            energy_joules=sampler.energy_joules,
            energy_source=self._energy.source if self._energy else None,
        )


class _Sampler:
    """A thread that reads what has no peak counter of its own, while a phase runs."""

    def __init__(
        self, host: HostGauge, cuda: CudaGauge | None, energy: EnergyCounter | None
    ) -> None:
        self._host = host
        self._cuda = cuda
        self._energy = energy
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)
        self.energy_joules: float | None = None

    def __enter__(self) -> _Sampler:
        if self._energy is not None:
            self._energy.start()
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take a last sample and end the thread. Calling it again does nothing."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._thread.join()
        self._sample()
        if self._energy is not None:
            self.energy_joules = self._energy.joules()

    def _run(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        self._host.sample()
        if self._cuda is not None:
            self._cuda.sample()
        if self._energy is not None:
            self._energy.sample()


def _give_back() -> None:
    """Free what nobody holds, so that it does not count for the phase that begins."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim is not None:
            trim(0)
