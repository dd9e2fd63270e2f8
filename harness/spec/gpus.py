"""GPUs: what is known of a GPU without having it, from ``gpus.toml``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from harness.errors import UnknownName, UserError
from harness.spec.device import Device
from harness.spec.schema import Frozen, parse
from harness.spec.storage import read_toml

TABLE = Path(__file__).parent / "gpus.toml"
MIB = 1 << 20
PREFIXES = "kmgt"
SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


class Gpu(Frozen):
    """One row of the table (see the comment at its head)."""

    name: str
    other: tuple[str, ...] = ()
    memory_mib: Annotated[int, Field(gt=0)]
    bfloat16: bool
    float8: bool = False
    tflops: Annotated[float, Field(gt=0)] | None = None
    source: str


def known_gpus() -> Mapping[str, Gpu]:
    """The table, by short name."""
    return {name: parse(Gpu, row, where=TABLE) for name, row in read_toml(TABLE).items()}


def planned_gpu(name: str) -> Device:
    """The device of a plan for a GPU that need not be here.

    Raises:
        UnknownName: the table has no such GPU.
    """
    gpus = known_gpus()
    gpu = gpus.get(name.lower().replace("-", "_"))
    if gpu is None:
        raise UnknownName("GPU", name, gpus, where="--gpu")
    return Device(
        kind="cuda",
        name=gpu.name,
        memory_bytes=gpu.memory_mib * MIB,
        bfloat16=gpu.bfloat16,
        float8=gpu.float8,
    )


def peak_flops(device_name: str) -> float | None:
    """Dense bfloat16 peak (FLOP/s) of the device that NVML calls ``device_name``, if known."""
    for gpu in known_gpus().values():
        if device_name in (gpu.name, *gpu.other):
            return gpu.tflops * 1e12 if gpu.tflops is not None else None
    return None


def parse_memory(text: str, option: str = "--memory") -> int:
    """Bytes of ``24GiB``, ``24GB``, ``15360 MiB`` or ``512B``; a number without a unit is refused.

    Raises:
        UserError: not a size.
    """
    found = SIZE.fullmatch(text)
    unit = _unit_bytes(found[2].lower()) if found else None
    if found is None or unit is None:
        raise UserError(
            f"{text!r} is not an amount of memory with its unit",
            where=option,
            expected="24GiB, for example",
        )
    return round(float(found[1]) * unit)


def _unit_bytes(unit: str) -> int | None:
    """Bytes of "b", "gb" (powers of 1000) and "gib" or "g" (powers of 1024)."""
    if unit == "b":
        return 1
    if not unit:
        return None
    power = PREFIXES.find(unit[0]) + 1
    factor = {"b": 1000, "ib": 1024, "": 1024}.get(unit[1:])
    return int(factor**power) if power and factor else None
