"""Whole runs of architectures that once could not be loaded, rehearsed or trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.store import RunStore
from tests.runs.forked import supervise
from tests.runs.small_run import Heard, make_small

slow = pytest.mark.slow
CASES = (
    pytest.param("gpt_neox", "lora_bf16", id="gpt_neox"),
    pytest.param("falcon", "qlora_nf4", id="falcon-nf4"),
    pytest.param("gpt_neox", "qlora_nf4", id="gpt_neox-nf4", marks=slow),
    pytest.param("falcon", "lora_bf16", id="falcon", marks=slow),
    pytest.param("falcon_alibi", "qlora_nf4", id="falcon_alibi-nf4", marks=slow),
    pytest.param("bloom", "lora_bf16", id="bloom", marks=slow),
    pytest.param("gptj", "lora_bf16", id="gptj", marks=slow),
    pytest.param("mpt", "lora_bf16", id="mpt", marks=slow),
    pytest.param("opt", "qlora_nf4", id="opt-nf4", marks=slow),
    pytest.param("gpt2", "qlora_nf4", id="gpt2-nf4", marks=slow),
    pytest.param("granite", "lora_bf16", id="granite", marks=slow),
    pytest.param("qwen2_window", "lora_bf16", id="qwen2_window", marks=slow),
)


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_it_is_planned_trained_and_scored(name: str, variant: str, tmp_path: Path) -> None:
    small = make_small(tmp_path, steps=2, architecture=name)
    plan = small.plan("training.speed=fast", variant=variant)
    speed = {item.key: item.used for item in plan.substitutions}.get("training.speed", "fast")
    record = supervise(plan, RunStore(tmp_path / "runs"), Heard())
    assert record.status == "ok", record.problem
    assert record.training is not None
    assert record.training.trainer == speed == plan.training.speed
    assert len(record.training.losses) == 2
    assert record.census is not None
    quantized = sum(row.bytes for row in record.census.rows if row.quantization != "none")
    assert bool(quantized) == (variant == "qlora_nf4")
    assert {score.stage for score in record.scores} == {"before", "after"}
