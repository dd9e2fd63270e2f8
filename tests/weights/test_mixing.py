"""Float32 adapters on 16-bit weights are scored, whatever PEFT's layers make of the two dtypes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.records.events import Silence
from harness.score.likelihood import Likelihood, Query
from harness.spec.device import Device
from harness.weights.adapter import attach_adapter
from harness.weights.mixing import let_dtypes_mix
from tests.architectures import tiny_causal
from tests.planned import planned

HALF = Device(kind="cpu", name="A CPU with bfloat16", memory_bytes=24 << 30, bfloat16=True)


def adapted(variant: str, dtype: torch.dtype) -> Any:
    plan = planned(variant, device=HALF)
    assert (plan.precision.compute, plan.precision.trainable) == ("bfloat16", "float32")
    return attach_adapter(tiny_causal("llama").to(dtype), plan)


@pytest.mark.parametrize("variant", ["ln_tuning", "vera", "lora_embeddings", "delora"])
def test_what_cannot_be_mixed_is_scored_under_autocast(variant: str) -> None:
    import numpy as np

    tokens = np.arange(20) % 150
    query = Query(tokens, np.array([3, 9, 19]))
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        model = adapted(variant, dtype).eval()
        (answer,) = Likelihood(model, 512, Silence()).answer([query])
        found.append(answer.log_probs)
    assert found[0] == pytest.approx(found[1], abs=0.1)


def test_what_mixes_is_left_alone() -> None:
    model = adapted("lora_bf16", torch.bfloat16)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not let_dtypes_mix(model, torch.bfloat16)


def test_another_error_is_not_taken_for_a_mixture() -> None:
    model = tiny_causal("llama").to(torch.bfloat16)
    model.model.layers[0].self_attn.q_proj.weight.data = torch.zeros(3, 3, dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match="shape"):
        let_dtypes_mix(model, torch.bfloat16)
