"""The device of a plan is found without importing torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.spec.device import (
    THREAD_LIMITS,
    Device,
    detect_device,
    first_visible,
    machine_memory_bytes,
    nth_visible,
    usable_threads,
    visible_gpus,
    visible_places,
)


def test_the_cpu_is_described_by_name_memory_and_threads() -> None:
    device = detect_device("cpu")
    assert device.kind == "cpu"
    assert device.name
    assert device.threads == usable_threads()
    assert device.memory_bytes == machine_memory_bytes()
    assert device.memory_bytes is None or device.memory_bytes > 1 << 28


def test_a_device_is_named_apart_from_all_others_of_its_name() -> None:
    two = Device(kind="cpu", name="EPYC", memory_bytes=24 << 30, bfloat16=False, threads=2)
    eight = two.model_copy(update={"threads": 8})
    larger = two.model_copy(update={"memory_bytes": 48 << 30})
    fast = larger.model_copy(update={"bfloat16": True})
    old = two.model_copy(update={"threads": None})
    gpu = Device(kind="cuda", name="H100", memory_bytes=80 << 30, bfloat16=True)
    assert two.told_from() == two.told_from(gpu) == "EPYC"
    assert gpu.told_from(two, eight) == "H100"
    assert two.told_from(gpu, eight) == "EPYC with 2 threads", "whichever comes first"
    assert two.told_from(larger) == "EPYC with 24.0 GiB"
    assert two.told_from(larger, fast) == "EPYC with slow bfloat16 and 24.0 GiB"
    assert fast.told_from(two, eight) == "EPYC with 2 threads and fast bfloat16"
    assert old.told_from(two) == "EPYC with an unknown number of threads"
    floats = gpu.model_copy(update={"float8": True})
    assert (gpu.told_from(floats), floats.told_from(gpu)) == (
        "H100 with no eight-bit products",
        "H100 with eight-bit products",
    )


def test_hidden_gpus_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert detect_device("auto") == detect_device("cpu")


@pytest.mark.parametrize(
    ("visible", "first"),
    [
        (None, 0),
        ("", None),
        ("-1", None),
        ("-1,0", None),
        ("NoDevFiles", None),
        ("2", 2),
        (" 3 ,1", 3),
        ("GPU-8932f937", "GPU-8932f937"),
        ("MIG-8932f937-d72c", "MIG-8932f937-d72c"),
    ],
)
def test_the_first_gpu_is_the_one_that_cuda_would_take(
    visible: str | None, first: int | str | None
) -> None:
    assert first_visible(visible) == first


@pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="no NVIDIA GPU here")
def test_a_gpu_is_found_by_its_index_and_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    pynvml.nvmlInit()
    last = pynvml.nvmlDeviceGetCount() - 1
    handle = pynvml.nvmlDeviceGetHandleByIndex(last)
    name, uuid = pynvml.nvmlDeviceGetName(handle), pynvml.nvmlDeviceGetUUID(handle)
    pynvml.nvmlShutdown()
    for visible in (str(last), uuid, uuid[:12]):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert detect_device("cuda").name == name
    for hidden in ("-1", "99", "GPU-00000000"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert detect_device("auto").kind == "cpu"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks here")
def test_only_the_cores_this_process_may_use_are_counted() -> None:
    code = (
        "import os\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from harness.spec.device import detect_device\n"
        "print(detect_device('cpu').threads)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 8),
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "3,2"}, 3),
        ({"OMP_NUM_THREADS": "64"}, 8),
        ({"MKL_NUM_THREADS": "2", "OMP_NUM_THREADS": "3"}, 2),
        ({"MKL_NUM_THREADS": "", "OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "0"}, 8),
        ({"OMP_NUM_THREADS": "many"}, 8),
    ],
)
def test_threads_are_those_that_the_user_has_set(
    environment: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.spec.device.usable_cores", lambda: 8)
    for name in THREAD_LIMITS:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert detect_device("cpu").threads == expected


@pytest.mark.parametrize("name", THREAD_LIMITS)
def test_pytorch_computes_with_as_many_threads(name: str) -> None:
    code = (
        "import torch\n"
        "from harness.spec.device import detect_device\n"
        "print(torch.get_num_threads(), detect_device('cpu').threads)\n"
    )
    others = {key: value for key, value in os.environ.items() if key not in THREAD_LIMITS}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=others | {name: "1"},
    )
    assert done.stdout.split() == ["1", "1"]


def test_detection_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from harness.spec.device import detect_device\n"
        "detect_device()\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_gpu_that_is_asked_for_and_not_there_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match="no NVIDIA GPU"):
        detect_device("cuda")


def test_a_gpu_that_there_is_not_is_refused_with_what_to_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(UserError, match="no NVIDIA GPU can be used here") as caught:
        detect_device("cuda")
    assert "--device cuda" in str(caught.value)
    assert "harness doctor" in str(caught.value)
    assert visible_gpus() == []


@pytest.mark.parametrize(
    ("visible", "index", "name"),
    [(None, 3, "3"), ("5,2", 0, "5"), ("5, 2", 1, "2"), ("5,2", 2, None), ("GPU-8a", 0, "GPU-8a")],
)
def test_the_nth_gpu_is_the_nth_entry(visible: str | None, index: int, name: str | None) -> None:
    assert nth_visible(visible, index) == name


UUIDS = ("GPU-aaaa-1", "GPU-bbbb-2", "GPU-bbcc-3")


@pytest.mark.parametrize(
    ("visible", "places"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("0", [0]),
        ("2,0", [2, 0]),
        ("GPU-bbc,0", [2, 0]),
        ("GPU-bbbb-2", [1]),
        ("1,7,0", [1]),
        ("0,-1,1", [0]),
        ("GPU-ffff,0", []),
        ("MIG-1234,1", ["MIG-1234", 1]),
    ],
)
def test_all_visible_gpus_are_found_in_their_order(
    visible: str | None, places: list[int | str]
) -> None:
    """Entries that name nothing hide those that follow; where they end, so do the GPUs."""
    assert visible_places(visible, UUIDS) == places
