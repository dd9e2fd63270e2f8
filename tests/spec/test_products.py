"""Products in eight-bit floats are refused where nothing could carry them out, when planned."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import UserError
from harness.spec.device import Device
from harness.train.path import path_of
from tests.planned import CPU, planned

HOPPER = Device(kind="cuda", name="New", memory_bytes=80 << 30, bfloat16=True, float8=True)
AMPERE = HOPPER.model_copy(update={"name": "Old", "float8": False})
FLOAT8 = "precision.products=float8"


def test_variants_in_float8_are_plans_of_their_own_on_a_gpu_and_on_a_cpu() -> None:
    for name, ordinary in (("qlora_nf4_fp8", "qlora_nf4_dq"), ("lora_fp8", "lora_bf16")):
        for device in (HOPPER, CPU):
            plan, other = planned(name, device=device), planned(ordinary, device=device)
            assert plan.precision.products == "float8"
            assert plan.quantization == other.quantization
            assert plan.fingerprint != other.fingerprint
            assert plan.base_fingerprint != other.base_fingerprint, "its base is scored so too"
    assert path_of(planned("lora_fp8", "training.speed=fast", device=HOPPER)).name == "fast"


def test_whether_a_gpu_can_is_no_part_of_what_decides_a_result() -> None:
    older = HOPPER.model_copy(update={"float8": False})
    assert planned(device=HOPPER).fingerprint == planned(device=older).fingerprint
    assert planned(device=HOPPER).base_fingerprint == planned(device=older).base_fingerprint


@pytest.mark.parametrize(
    ("variant", "device", "reason"),
    [
        ("lora_bf16", AMPERE, "compute capability 8.9"),
        ("lora_fp16", HOPPER, "precision.compute is float16"),
        ("full_finetune", HOPPER, "trains the weights"),
        ("lora_int8", HOPPER, "products of their own"),
        ("lora_dora", HOPPER, "DoRA"),
        ("ia3", CPU, "IA3"),
    ],
)
def test_what_cannot_have_them_is_refused(variant: str, device: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        planned(variant, FLOAT8, device=device)
    assert error.value.where == "precision.products"
