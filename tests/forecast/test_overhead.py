"""Overhead: what a process is said to need beside its tensors, and what stays on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness.forecast.overhead import (
    CUBLAS_BYTES,
    HEAP_SHARE,
    LIBRARIES_BYTES,
    TRAINER_BYTES,
    overhead,
    unread_bytes,
)
from harness.forecast.weights import standing_bytes
from harness.spec.model import FolderSource
from harness.spec.plan import Plan
from harness.weights.shape import count_plan
from tests.planned import CPU, GPU, planned


def test_a_gpu_holds_one_layer_twice_while_it_loads() -> None:
    plan = planned("qlora_nf4", device=GPU)
    counts = count_plan(plan)
    found = overhead(plan, counts)
    assert found.loading == counts.largest * 2, "in bfloat16"
    assert found.training == 2 * found.scoring == 2 * CUBLAS_BYTES
    assert found.heap_share == 1.0


def test_a_cpu_holds_the_libraries_and_more_to_train() -> None:
    plan = planned("lora_bf16")
    found = overhead(plan, count_plan(plan))
    assert found.scoring == LIBRARIES_BYTES, "nothing was quantized"
    assert found.training == LIBRARIES_BYTES + TRAINER_BYTES
    assert found.heap_share == HEAP_SHARE > 1


def test_pages_that_were_quantized_from_stay_mapped_on_a_cpu() -> None:
    plan = planned("qlora_nf4")
    counts = count_plan(plan)
    found = overhead(plan, counts)
    width = {"float32": 4, "bfloat16": 2}[plan.precision.compute]
    assert found.scoring == LIBRARIES_BYTES + counts.quantized * width
    assert counts.quantized > 0


def test_weights_that_are_converted_while_they_load_are_read_as_they_are_stored() -> None:
    plain = planned("lora_bf16")
    assert plain.precision.compute == "float32", "this device has no bfloat16"
    counts = count_plan(plain)
    half = plain.model_copy(
        update={"precision": plain.precision.model_copy(update={"compute": "bfloat16"})}
    )
    assert overhead(plain, counts).loading == LIBRARIES_BYTES
    assert overhead(half, counts).loading == LIBRARIES_BYTES + 4 * counts.total


@pytest.mark.parametrize(("dtype", "converted"), [("float32", 4), ("bfloat16", 0)])
def test_a_folder_s_files_say_what_is_converted(tmp_path: Path, dtype: str, converted: int) -> None:
    weights = {"a": torch.zeros(1000, dtype=getattr(torch, dtype))}
    save_file(weights, tmp_path / "model.safetensors")
    plan = planned("lora_bf16", device=CPU.model_copy(update={"bfloat16": True}))
    source = FolderSource(kind="folder", path=str(tmp_path))
    plan = plan.model_copy(update={"model": plan.model.model_copy(update={"source": source})})
    assert plan.precision.compute == "bfloat16"
    found = overhead(plan, count_plan(plan))
    assert found.loading == LIBRARIES_BYTES + converted * 1000
    assert unread_bytes(plan, 2000) == (0 if converted else 2000)


@pytest.mark.parametrize(
    ("dtype", "compute", "loading", "left"),
    [
        ("bfloat16", "bfloat16", 0.28, 0.28),  # GiB, measured on SmolLM2 in these two dtypes
        ("bfloat16", "float32", 0.45, 0.18),
        ("float32", "float32", 0.75, 0.74),
        ("float32", "bfloat16", 0.93, 0.43),
    ],
)
def test_nf4_on_a_cpu_loads_in_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, dtype: str, compute: str, loading: float, left: float
) -> None:
    plan = planned("qlora_nf4", device=CPU.model_copy(update={"bfloat16": compute == "bfloat16"}))
    counts = count_plan(plan)
    size = counts.total * {"bfloat16": 2, "float32": 4}[dtype]
    monkeypatch.setattr("harness.forecast.overhead._files", lambda *_: {dtype: size})
    found = overhead(plan, counts)
    weights = standing_bytes(plan, counts).base
    beside = [size + weights - LIBRARIES_BYTES for size in (found.loading, found.scoring)]
    assert beside[0] / 2**30 == pytest.approx(loading, abs=0.2)
    assert beside[1] / 2**30 == pytest.approx(left, abs=0.2)


@pytest.mark.parametrize(
    ("plan", "stays"),
    [
        (planned("lora_bf16"), True),
        (planned("base"), True),
        (planned("qlora_nf4"), False),
        (planned("lora_bf16", device=GPU), False),
    ],
    ids=["float32 on a CPU", "untrained", "quantized", "on a GPU"],
)
def test_weights_as_stored_stay_on_the_disk_until_they_are_used(plan: Plan, stays: bool) -> None:
    assert unread_bytes(plan, 1000) == (1000 if stays else 0)
