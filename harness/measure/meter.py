"""Meter: what each phase of a run costs in time, memory and energy."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from harness.measure.energy import EnergyCounter, energy_counter
from harness.measure.gauges import CudaGauge, HostGauge
from harness.measure.repeated import Repeated
from harness.records.record import PEAKS, PhaseCost, PhaseName
from harness.spec.device import Device

SAMPLE_SECONDS = 0.02


class Meter:
    """Measures phases of this process, one after another.

    Around each phase the allocator's peaks are reset and what the phase before left in caches is
    given back, so that a peak belongs to its phase. Work queued on a GPU is waited for before the
    clock is read. What has no peak counter of its own is read by a thread, which begins with
    ``with``, before a model takes the memory that a thread needs (without ``with``, at the first
    phase), and ends with `close`.
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
        self._under_way: _UnderWay | None = None
        self._host = HostGauge()
        self._cuda: CudaGauge | None = None
        self._energy: EnergyCounter | None = None
        self._found = False
        self._lock = threading.Lock()
        self._stretch: _Stretch | None = None  # what is measured now
        self._samples: Repeated | None = None

    def __enter__(self) -> Self:
        """Begin the thread, measure phases in the body, and close after that."""
        self._begin_samples()
        return self

    def __exit__(self, *_: object) -> None:
        """As `close`."""
        self.close()

    def close(self) -> None:
        """End the thread; a phase that comes after that begins another."""
        samples, self._samples = self._samples, None
        if samples is not None:
            samples.close()

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
        self._begin_samples()
        _give_back()
        whole = self._under_way = _UnderWay(name, self._begin())
        try:
            yield
        finally:
            self._under_way = None
            whole.costs.setdefault(name, []).append(self._end(name, whole.stretch))
            order = sorted(whole.costs, key=lambda one: one != name)
            self._costs += [_together(whole.costs[one]) for one in order]

    @contextmanager
    def aside(self, name: PhaseName) -> Iterator[None]:
        """Measure the body, which interrupts the phase under way, apart from it, as ``name``.

        All that interrupts a phase under one name is one cost, which follows the phase's own.
        Caches are left alone, since the phase goes on.

        Raises:
            RuntimeError: no phase is under way.
        """
        whole = self._under_way
        if whole is None:
            msg = f"{name} interrupts a phase, and none is under way"
            raise RuntimeError(msg)
        whole.costs.setdefault(whole.name, []).append(self._end(whole.name, whole.stretch))
        whole.stretch = self._begin()
        try:
            yield
        finally:
            whole.costs.setdefault(name, []).append(self._end(name, whole.stretch))
            whole.stretch = self._begin()

    def _begin_samples(self) -> None:
        """Begin the thread, unless it is there."""
        if self._samples is None:
            self._samples = Repeated(self._sample, SAMPLE_SECONDS, "meter")

    def _begin(self) -> _Stretch:
        """Begin to measure, with peaks from now on."""
        self._host.reset()
        if self._cuda is not None:
            self._cuda.reset()
        with self._lock:
            self._stretch = _Stretch(self._host, self._cuda, self._energy)
            return self._stretch

    def _end(self, name: PhaseName, stretch: _Stretch) -> PhaseCost:
        if self._cuda is not None:
            self._cuda.wait()
        seconds = time.perf_counter() - stretch.started
        with self._lock:  # a sample under way belongs to it, and no later one does
            self._stretch = None
        stretch.stop()
        return self._cost(name, seconds, stretch)

    def _sample(self) -> None:
        with self._lock:
            if self._stretch is not None:
                self._stretch.sample()

    def _find_gauges(self) -> None:
        """Once, inside the child: NVML and RAPL open files that a fork would share."""
        if self._found:
            return
        self._found = True
        if self._device.kind == "cuda":
            self._cuda = CudaGauge()
        if not self._shared and (self._leads or self._cuda is not None):
            self._energy = energy_counter(self._cuda)

    def _cost(self, name: PhaseName, seconds: float, stretch: _Stretch) -> PhaseCost:
        cuda = self._cuda
        return PhaseCost(
            name=name,
            seconds=seconds,
            peak_resident_bytes=self._host.peak_bytes(),
            peak_allocated_bytes=cuda.peak_allocated_bytes() if cuda else None,
            peak_reserved_bytes=cuda.peak_reserved_bytes() if cuda else None,
            peak_device_bytes=cuda.peak_device_bytes if cuda and not self._shared else None,
            energy_joules=stretch.energy_joules,
            energy_source=self._energy.source if self._energy else None,
        )


class _Stretch:
    """Time that is measured, with samples of what has no peak counter of its own."""

    def __init__(
        self, host: HostGauge, cuda: CudaGauge | None, energy: EnergyCounter | None
    ) -> None:
        self._host = host
        self._cuda = cuda
        self._energy = energy
        self.energy_joules: float | None = None
        self.started = time.perf_counter()
        if self._energy is not None:
            self._energy.start()
        self.sample()

    def sample(self) -> None:
        """Take present values into the peaks and sums."""
        self._host.sample()
        if self._cuda is not None:
            self._cuda.sample()
        if self._energy is not None:
            self._energy.sample()

    def stop(self) -> None:
        """Take a last sample."""
        self.sample()
        if self._energy is not None:
            self.energy_joules = self._energy.joules()


@dataclass
class _UnderWay:
    """A phase that has begun, and the finished parts of it and of what interrupted it."""

    name: PhaseName
    stretch: _Stretch
    costs: dict[PhaseName, list[PhaseCost]] = field(default_factory=dict)


def _together(parts: list[PhaseCost]) -> PhaseCost:
    """One cost of several parts: times and energies add up, of peaks the highest counts."""
    if len(parts) == 1:
        return parts[0]
    peaks = {
        kind: max(
            (size for part in parts if (size := getattr(part, kind)) is not None), default=None
        )
        for kind in PEAKS
    }
    joules = [part.energy_joules for part in parts if part.energy_joules is not None]
    whole = sum(joules) if len(joules) == len(parts) else None
    seconds = sum(part.seconds for part in parts)
    return parts[0].model_copy(update={**peaks, "seconds": seconds, "energy_joules": whole})


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
