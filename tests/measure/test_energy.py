"""Energy: counters that wrap, vanish or were never there, by files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pynvml
import pytest

from harness.measure.energy import NvmlEnergy, RaplEnergy, energy_counter

RANGE = 1_000_000  # microjoules, at which the counters below wrap around


def zone(root: Path, name: str, label: str, microjoules: int | None) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(label + "\n", encoding="ascii")
    (folder / "max_energy_range_uj").write_text(f"{RANGE}\n", encoding="ascii")
    if microjoules is not None:
        count(folder, microjoules)
    return folder


def count(folder: Path, microjoules: int) -> None:
    (folder / "energy_uj").write_text(f"{microjoules}\n", encoding="ascii")


def test_packages_are_added_and_their_parts_are_not(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 100)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 100)
    part = zone(tmp_path, "intel-rapl:0:0", "dram", 0)
    whole = zone(tmp_path, "intel-rapl:2", "psys", 0)
    counter = energy_counter(None, tmp_path)
    assert isinstance(counter, RaplEnergy)
    counter.start()
    for folder, used in ((first, 300_100), (second, 200_100), (part, 9999), (whole, 9999)):
        count(folder, used)
    counter.sample()
    assert counter.joules() == pytest.approx(0.5)


def test_a_counter_that_wraps_goes_on(tmp_path: Path) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0", RANGE - 100)
    counter = RaplEnergy([folder])
    counter.start()
    for reading in (200, 700, 100):
        count(folder, reading)
        counter.sample()
    assert counter.joules() == pytest.approx((100 + 200 + 500 + RANGE - 600) / 1e6)


def test_a_new_start_begins_at_zero(tmp_path: Path) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    counter = RaplEnergy([folder])
    counter.start()
    count(folder, 500)
    counter.sample()
    counter.start()
    assert counter.joules() == 0
    count(folder, 600)
    counter.sample()
    assert counter.joules() == pytest.approx(100 / 1e6)


@pytest.mark.parametrize("content", ["", "not a number", "-5"])
def test_a_counter_that_can_no_longer_be_read_is_unknown(tmp_path: Path, content: str) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    counter = RaplEnergy([folder])
    counter.start()
    (folder / "energy_uj").write_text(content, encoding="ascii")
    counter.sample()
    assert counter.joules() is None, "not what was counted until then"


@pytest.mark.parametrize(
    ("name", "label", "microjoules"),
    [
        ("intel-rapl:0", "package-0", None),
        ("intel-rapl:0", "psys", 5),
        ("intel-rapl:0:1", "package-0", 5),
        ("thermal:0", "package-0", 5),
    ],
)
def test_what_is_no_readable_package_counts_nothing(
    tmp_path: Path, name: str, label: str, microjoules: int | None
) -> None:
    zone(tmp_path, name, label, microjoules)
    assert energy_counter(None, tmp_path) is None


def test_a_machine_without_counters_has_none(tmp_path: Path) -> None:
    assert energy_counter(None, tmp_path / "nowhere") is None


def test_a_gpu_s_counter_is_in_millijoules(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter((5000, 7500))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda _: next(readings))
    counter = NvmlEnergy("a handle")
    counter.start()
    counter.sample()
    assert counter.joules() == 2.5


@pytest.mark.parametrize("fails_at", [0, 1])
def test_a_gpu_that_does_not_tell_is_unknown(
    monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    calls = []

    def read(_: object) -> int:
        calls.append(None)
        if len(calls) > fails_at:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return 5000

    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", read)
    counter = NvmlEnergy("a handle")
    counter.start()
    assert counter.joules() is None
