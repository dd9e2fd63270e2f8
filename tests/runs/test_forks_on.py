"""Only runs whose memory is read off a GPU are forked."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.store import RunStore
from harness.runs.executor import LocalExecutor
from harness.runs.options import RunOptions
from harness.spec.device import Device
from tests.planned import CPU, GPU, planned


@pytest.mark.parametrize(("device", "expected"), [(GPU, [False, True]), (CPU, [False, False])])
def test_a_cpu_run_is_not_forked_for_its_resident_memory_would_read_too_low(
    device: Device, expected: list[bool], tmp_path: Path
) -> None:
    executor = LocalExecutor(RunStore(tmp_path), RunOptions(warm=True))
    plan = planned("lora_bf16", device=device)
    assert [executor.forks(plan) for _ in expected] == expected
