"""Environment: the manifest of where a run ran, without secrets, user names or paths."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import __version__
from harness.measure.gauges import nvml_handle
from harness.origin import RESULT_ROOMS, package_versions, settings, sources_digest
from harness.quantize.scheme import scheme_packages
from harness.records.record import Environment
from harness.spec.device import Device, cpu_name, machine_memory_bytes, usable_cores

PACKAGES = (
    "accelerate",
    "datasets",
    "gguf",
    "lm-eval",
    "numpy",
    "peft",
    "pyarrow",
    "safetensors",
    "sacrebleu",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
    "triton",
    "trl",
)
CHECKOUT = Path(__file__).parents[2]


def take_environment(device: Device) -> Environment:
    """The manifest of this process, to be taken in the child once torch is set up."""
    import torch

    commit, dirty = _commit()
    packages = sorted({*PACKAGES, *scheme_packages()})
    return Environment(
        python=platform.python_version(),
        packages={"finetune-harness": __version__, **package_versions(packages)},
        os=platform.platform(),
        cpu=cpu_name(),
        cores=usable_cores(),
        threads=torch.get_num_threads(),
        memory_bytes=machine_memory_bytes(),
        commit=commit,
        dirty=dirty,
        deterministic=torch.are_deterministic_algorithms_enabled(),
        settings=settings(),
        sources=sources_digest(*RESULT_ROOMS),
        **(_gpu() if device.kind == "cuda" else {}),
    )


def _gpu() -> dict[str, Any]:
    import pynvml
    import torch

    properties = torch.cuda.get_device_properties(0)
    found: dict[str, Any] = {
        "gpu": properties.name,
        "gpu_memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
    }
    handle = nvml_handle(str(properties.uuid))
    if handle is None:
        return found
    readings: dict[str, Callable[[], Any]] = {
        "gpu_driver": lambda: str(pynvml.nvmlSystemGetDriverVersion()),
        "gpu_clock_mhz": lambda: int(
            pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM)
        ),
        "gpu_memory_clock_mhz": lambda: int(
            pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_MEM)
        ),
        "gpu_power_limit_watts": lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000,
    }
    for name, read in readings.items():
        try:
            found[name] = read()
        except pynvml.NVMLError:
            continue  # not told by this device: stays null
    return found


def _commit() -> tuple[str | None, bool | None]:
    """Commit of the harness's own checkout and whether its code differs; null when installed."""
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != CHECKOUT.resolve():
        return None, None
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", "harness", "variants")
    return commit, None if changes is None else bool(changes)


def _git(*arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(CHECKOUT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
