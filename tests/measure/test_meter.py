"""The meter, on this very process."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.measure.energy import RaplEnergy, energy_counter
from harness.measure.gauges import HostGauge, device_bytes
from harness.measure.meter import Meter
from harness.spec.device import Device

MIB = 1 << 20
CPU = Device(kind="cpu", name="Plain CPU", memory_bytes=24 << 30, bfloat16=False, threads=2)


@pytest.fixture
def meter() -> Iterator[Meter]:
    """A meter of the processor, closed after the test."""
    with Meter(CPU) as made:
        yield made


def touch(meter: Meter, mebibytes: int) -> None:
    """Use memory for a moment: shorter than the meter samples, where the kernel keeps a peak."""
    block = np.ones(mebibytes * MIB, dtype=np.uint8)
    if not meter._host._kernel_peak:
        wait_for_a_sample(meter)
    del block


def wait_for_a_sample(meter: Meter) -> None:
    """Until the meter's own thread has looked at what there is now."""
    taken, stretch = threading.Event(), meter._stretch
    assert stretch is not None
    sample = stretch.sample

    def take() -> None:
        sample()
        taken.set()

    stretch.sample = take  # type: ignore[method-assign]
    assert taken.wait(300)


def test_a_short_peak_belongs_to_its_phase_alone(meter: Meter) -> None:
    with meter.phase("prepare"):
        pass
    with meter.phase("load"):
        touch(meter, 300)
    with meter.phase("train"):
        pass
    before, peak, after = (cost.peak_resident_bytes or 0 for cost in meter.costs)
    assert peak - before > 250 * MIB
    assert peak - after > 250 * MIB


def test_peaks_are_sampled_where_the_kernel_keeps_none(
    meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.measure.gauges.CLEAR_REFS", Path("/nowhere/clear_refs"))
    with meter.phase("load"):
        pass
    with meter.phase("train"):
        touch(meter, 300)
    before, peak = (cost.peak_resident_bytes or 0 for cost in meter.costs)
    assert peak - before > 250 * MIB


def test_a_phase_that_fails_has_a_cost_too(meter: Meter) -> None:

    def run_out() -> None:
        with meter.phase("train"):
            raise MemoryError

    with pytest.raises(MemoryError):
        run_out()
    (cost,) = meter.costs
    assert cost.name == "train"
    assert cost.seconds > 0


def test_a_phase_may_come_again(meter: Meter) -> None:
    for _ in range(2):
        with meter.phase("score"):
            time.sleep(0.01)
    assert [cost.name for cost in meter.costs] == ["score", "score"]
    assert all(cost.seconds >= 0.01 for cost in meter.costs)


def test_unknown_is_null_not_zero(meter: Meter) -> None:
    with meter.phase("fetch"):
        pass
    (cost,) = meter.costs
    assert cost.peak_allocated_bytes is cost.peak_reserved_bytes is cost.peak_device_bytes is None
    assert (cost.energy_joules is None) == (cost.energy_source is None)


def meter_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "meter"]


def test_one_thread_serves_all_phases_and_ends_with_the_meter() -> None:
    with Meter(CPU) as meter:
        with meter.phase("fetch"):
            (first,) = meter_threads()
        with meter.phase("train"):
            assert meter_threads() == [first]
            with meter.aside("validate"):
                assert meter_threads() == [first]
    assert meter_threads() == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_died_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:

    def die(_: Meter) -> None:
        raise ValueError

    monkeypatch.setattr(Meter, "_sample", die)
    with Meter(CPU) as meter:
        for thread in meter_threads():
            thread.join(300)
        assert meter_threads() == []
        monkeypatch.undo()
        with meter.phase("train"):
            assert len(meter_threads()) == 1
    assert meter_threads() == []


def test_nothing_is_sampled_between_phases(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peak of what lies between two phases belongs to neither."""
    monkeypatch.setattr("harness.measure.gauges.CLEAR_REFS", Path("/nowhere/clear_refs"))
    with meter.phase("load"):
        pass
    block = np.ones(300 * MIB, dtype=np.uint8)
    time.sleep(0.2)
    assert meter._host.peak_bytes() == meter.costs[0].peak_resident_bytes
    del block


WITHOUT_MEMORY = r"""
import re, resource, threading
from pathlib import Path
from harness.measure.meter import Meter
from harness.spec.device import Device

threading.stack_size(64 << 20)
device = Device.model_validate_json('{device}')
with Meter(device) as meter, Meter(device) as later, Meter(device) as died:
    died._samples.close()
    threading.stack_size(128 << 20)  # the C library keeps the stack of the thread that ended
    with meter.phase("fetch"):
        pass
    size = int(re.search(r"VmSize:\s*(\d+)", Path("/proc/self/status").read_text())[1]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (size + (32 << 20), resource.RLIM_INFINITY))
    with meter.phase("train"):
        with meter.aside("validate"):
            pass
    for alone in (later, died):
        with alone.phase("score"):
            pass
print(*(cost.name for one in (meter, later, died) for cost in one.costs))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_phases_are_measured_where_no_more_thread_can_begin() -> None:
    """A run that is about to run out of memory is measured to its end, and does not wait.

    So are those that trained with it, whose first phase of their own comes after that, one of them
    without the thread that it began with.
    """
    code = WITHOUT_MEMORY.replace("{device}", CPU.model_dump_json())
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.stdout.split() == ["fetch", "train", "validate", "score", "score"], done.stderr


def test_live_numbers() -> None:
    assert Meter(CPU).live()["resident_bytes"] > 10 * MIB


def test_resident_memory_follows_use() -> None:
    gauge = HostGauge()
    gc.collect()
    before = gauge.resident_bytes()
    block = np.ones(100 * MIB, dtype=np.uint8)
    assert gauge.resident_bytes() - before > 90 * MIB
    del block


def test_without_nvml_device_memory_is_unknown() -> None:
    assert device_bytes(None) is None


def write_zone(folder: Path, name: str, microjoules: int, limit: int = 1000) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{limit}\n")
    return folder


def test_rapl_adds_packages_and_survives_a_wrap(tmp_path: Path) -> None:
    first = write_zone(tmp_path / "intel-rapl:0", "package-0", 900)
    second = write_zone(tmp_path / "intel-rapl:1", "package-1", 0)
    write_zone(tmp_path / "intel-rapl:0:0", "core", 5)  # part of package 0
    write_zone(tmp_path / "intel-rapl:2", "psys", 5)  # the whole machine
    counter = energy_counter(None, tmp_path)
    assert isinstance(counter, RaplEnergy)
    assert counter.source == "rapl"
    counter.start()
    write_zone(first, "package-0", 100)  # from 900 over 1000 to 100
    write_zone(second, "package-1", 50)
    counter.sample()
    write_zone(first, "package-0", 150)
    counter.sample()
    assert counter.joules() == pytest.approx(300e-6)


def test_rapl_that_becomes_unreadable_is_unknown(tmp_path: Path) -> None:
    zone = write_zone(tmp_path / "intel-rapl:0", "package-0", 1)
    counter = energy_counter(None, tmp_path)
    assert counter is not None
    counter.start()
    (zone / "energy_uj").unlink()
    counter.sample()
    assert counter.joules() is None


def test_no_rapl_no_energy(tmp_path: Path) -> None:
    assert energy_counter(None, tmp_path) is None


def test_on_a_shared_device_nobody_says_whose_energy_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_zone(tmp_path / "intel-rapl:0", "package-0", 1)
    counter = energy_counter(None, tmp_path)
    monkeypatch.setattr("harness.measure.meter.energy_counter", lambda _: counter)
    for shared in (False, True):
        with Meter(CPU, shared=shared) as meter, meter.phase("train"):
            pass
        assert (meter.costs[0].energy_joules is None) == shared
        assert (meter.costs[0].energy_source is None) == shared


def test_what_interrupts_a_phase_costs_the_phase_nothing(
    meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("harness.measure.meter.time.perf_counter", lambda: now[0])
    with meter.phase("train"):
        touch(meter, 150)
        now[0] += 1
        for size in (300, 200):
            with meter.aside("validate"):
                touch(meter, size)
                now[0] += 5
    train, validate = meter.costs
    assert (train.name, validate.name) == ("train", "validate")
    assert (train.seconds, validate.seconds) == (1.0, 10.0)
    peak = (validate.peak_resident_bytes or 0) - (train.peak_resident_bytes or 0)
    assert peak > 50 * MIB, "the higher of its peaks, which is not training's"


def test_an_interruption_that_fails_has_a_cost_too(meter: Meter) -> None:

    def run_out() -> None:
        with meter.phase("train"), meter.aside("validate"):
            raise MemoryError

    with pytest.raises(MemoryError):
        run_out()
    assert [cost.name for cost in meter.costs] == ["train", "validate"]


def test_there_must_be_a_phase_to_interrupt() -> None:
    with pytest.raises(RuntimeError, match="none is under way"), Meter(CPU).aside("validate"):
        pass
