"""Tokens and operations per second."""

from __future__ import annotations

import pytest

from harness.measure.throughput import throughput, warmup_steps
from harness.measure.work import training_flops_per_token
from harness.records.record import LossPoint
from tests.forecast.phi_plans import CPU, H100, make


def steps(*seconds: float, tokens: int = 1000) -> list[LossPoint]:
    return [
        LossPoint(step=i, loss=1.0, learning_rate=1e-4, seconds=s, non_padding_tokens=tokens)
        for i, s in enumerate(seconds, 1)
    ]


def test_slow_first_steps_are_left_out_and_said_to_be() -> None:
    found = throughput(steps(60, 30, *[0.5] * 20))
    assert found.warmup_steps == 3
    assert found.median == found.p10 == found.p90 == 2000


def test_spread() -> None:
    found = throughput(steps(9, 9, 1, 2, 4))
    assert found.median == 500
    assert found.p10 is not None
    assert found.p90 is not None
    assert 250 < found.p10 < 500 < found.p90 < 1000


@pytest.mark.parametrize(
    ("count", "expected"), [(0, 0), (1, 0), (2, 1), (3, 2), (20, 2), (40, 4), (1000, 100)]
)
def test_warm_up(count: int, expected: int) -> None:
    assert warmup_steps(count) == expected


def test_nothing_trained_is_unknown() -> None:
    found = throughput([])
    assert (found.median, found.flops_per_second, found.peak_share) == (None, None, None)


def test_flops_of_full_finetuning_are_six_per_weight_and_attention() -> None:
    plan = make("full_finetune")
    per_token = training_flops_per_token(plan, context=512, labelled_share=1.0)
    linear = 32 * (4 * 2560 * 2560 + 2 * 2560 * 10240) + 51200 * 2560
    assert per_token == 6 * linear + 6 * 32 * 2560 * 512


def test_an_adapter_saves_the_gradients_of_the_frozen_weights() -> None:
    full = training_flops_per_token(make("full_finetune"), 512, 1.0)
    lora = training_flops_per_token(make("lora_bf16"), 512, 1.0)
    assert 0.64 < lora / full < 0.70


def test_the_share_of_the_peak_is_known_on_a_known_gpu_only() -> None:
    training = {"sequence_length": 2048, "micro_batch_size": 4}
    points = steps(*[0.5] * 10, tokens=8192)
    on_gpu = throughput(points, make("lora_bf16", training, device=H100), context=2048)
    assert on_gpu.flops_per_second is not None
    assert on_gpu.peak_share == pytest.approx(on_gpu.flops_per_second / 989.4e12)
    on_cpu = throughput(points, make("lora_bf16", training, device=CPU), context=2048)
    assert on_cpu.flops_per_second is not None
    assert on_cpu.peak_share is None


def test_shifted_attention_has_the_context_of_its_groups() -> None:
    training = {"sequence_length": 2048, "attention": "shifted", "attention_groups": 4}
    plan = make("lora_bf16", training)
    shifted, group = (training_flops_per_token(plan, context, 1.0) for context in (2048, 512))
    assert shifted == group
    assert training_flops_per_token(plan, 100, 1.0) < group
