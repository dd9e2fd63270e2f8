"""GPUs that are not here, and amounts of memory."""

from __future__ import annotations

import pytest

from harness.errors import UnknownName, UserError
from harness.spec.gpus import known_gpus, parse_memory, peak_flops, planned_gpu


def test_a_known_gpu_becomes_a_device() -> None:
    device = planned_gpu("RTX4090")
    assert device.kind == "cuda"
    assert device.name == "NVIDIA GeForce RTX 4090"
    assert device.bfloat16
    assert not planned_gpu("t4").bfloat16


def test_an_unknown_gpu_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="rtx409") as caught:
        planned_gpu("rtx409")
    assert "rtx4090" in (caught.value.hint or "")


def test_every_row_has_a_source_and_a_plausible_size() -> None:
    for name, gpu in known_gpus().items():
        assert gpu.source, name
        assert 8 << 10 < gpu.memory_mib < 300 << 10, name
        assert (gpu.tflops is None) == (not gpu.bfloat16), name


def test_peaks_are_found_by_the_names_that_nvml_gives() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3") == pytest.approx(989.4e12)
    assert peak_flops("NVIDIA A100 80GB PCIe") == pytest.approx(312e12)
    assert peak_flops("Tesla T4") is None
    assert peak_flops("Somebody's GPU") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24GiB", 24 << 30),
        ("24 gib", 24 << 30),
        ("24G", 24 << 30),
        ("24GB", 24_000_000_000),
        ("15360MiB", 15360 << 20),
        ("0.5TiB", 1 << 39),
        ("1024 B", 1024),
    ],
)
def test_amounts_of_memory(text: str, expected: int) -> None:
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["", "12", "GiB", "24 potatoes", "-3GiB", "24GiB 3"])
def test_other_words_are_not_amounts(text: str) -> None:
    with pytest.raises(UserError, match="amount of memory"):
        parse_memory(text)
