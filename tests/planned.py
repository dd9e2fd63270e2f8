"""Plans as a person would get them from the command line, for tests of many rooms."""

from __future__ import annotations

from harness.spec.device import Device
from harness.spec.plan import Plan
from harness.spec.request import Request
from harness.train.path import resolve

CPU = Device(kind="cpu", name="Plain CPU", memory_bytes=24 << 30, bfloat16=False, threads=2)
BFLOAT16_CPU = CPU.model_copy(update={"name": "New CPU", "bfloat16": True})
GPU = Device(kind="cuda", name="Example GPU", memory_bytes=80 << 30, bfloat16=True)


def planned(
    variant: str = "qlora_nf4", *settings: str, seed: int = 0, device: Device = CPU
) -> Plan:
    """The plan of ``run --variant VARIANT --set SETTING … --seeds SEED`` under suite quick."""
    (plan,) = resolve(Request((variant,), settings=tuple(settings), seeds=(seed,)), device)
    return plan
