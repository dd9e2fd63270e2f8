"""Energy: joules by NVML's counter of the GPU, or by RAPL's counters of the processor packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from harness.measure.gauges import CudaGauge

POWERCAP = Path("/sys/class/powercap")


class EnergyCounter(Protocol):
    """Joules since :meth:`start`."""

    source: str

    def start(self) -> None:
        """Begin at zero."""

    def sample(self) -> None:
        """Read the counter; often enough, so that one that wraps around wraps once at most."""

    def joules(self) -> float | None:
        """Joules since the start, or None if the counter can no longer be read."""


class NvmlEnergy:
    """The counter of one GPU, in millijoules (Volta and later)."""

    source = "nvml"

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._first: int | None = None

    def start(self) -> None:
        """Begin at zero."""
        self._first = self._read()

    def sample(self) -> None:
        """Nothing to do: the counter does not wrap around."""

    def joules(self) -> float | None:
        """Joules since the start."""
        last = self._read()
        if last is None or self._first is None:
            return None
        return (last - self._first) / 1000

    def _read(self) -> int | None:
        import pynvml

        try:
            return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except pynvml.NVMLError:
            return None


class RaplEnergy:
    """The counters of all processor packages, in microjoules; each wraps around at its range."""

    source = "rapl"

    def __init__(self, zones: list[Path]) -> None:
        self._zones = zones
        self._last: list[int] | None = None
        self._microjoules = 0

    def start(self) -> None:
        """Begin at zero."""
        self._microjoules = 0
        self._last = self._read()

    def sample(self) -> None:
        """Add what was used since the last sample."""
        now = self._read()
        if now is None or self._last is None:
            self._last = None
            return
        for zone, before, after in zip(self._zones, self._last, now, strict=True):
            self._microjoules += after - before
            if after < before:
                self._microjoules += _number(zone / "max_energy_range_uj") or 0
        self._last = now

    def joules(self) -> float | None:
        """Joules since the start, by the samples."""
        return None if self._last is None else self._microjoules / 1e6

    def _read(self) -> list[int] | None:
        numbers = [_number(zone / "energy_uj") for zone in self._zones]
        return None if None in numbers else [number or 0 for number in numbers]


def energy_counter(cuda: CudaGauge | None, powercap: Path = POWERCAP) -> EnergyCounter | None:
    """The GPU's counter for a run on a GPU, RAPL for a run on the CPU, None where unreadable."""
    if cuda is not None:
        counter = NvmlEnergy(cuda.handle) if cuda.handle is not None else None
        if counter is None:
            return None
        counter.start()
        return counter if counter.joules() is not None else None
    zones = [
        zone
        for zone in sorted(powercap.glob("*-rapl:*"))
        if zone.name.count(":") == 1  # a package or psys; sub-zones are counted in it
        and (_text(zone / "name") or "").startswith("package")
        and _number(zone / "energy_uj") is not None
    ]
    return RaplEnergy(zones) if zones else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text and text.isdigit() else None
