"""The recorded path: what the plain path computes, in batches of one shape."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import IA3Config, get_peft_model
from transformers import masking_utils

from harness.corpus.sequences import IGNORED
from harness.records.events import Silence
from harness.spec.device import Device
from harness.train.path import choose_path, train
from harness.train.recorded.padded import PaddedSize, make_padded_batch
from harness.train.recorded.path import RECORDED
from harness.train.recorded.train import AutogradStep
from harness.train.schedule import MicroBatch
from harness.train.sft.path import PLAIN
from harness.weights.masks import replaced
from harness.weights.norms import fused_norms
from tests.architectures import tiny_causal
from tests.planned import planned
from tests.train.tiny import (
    ROUNDING,
    SAME_WAY,
    tiny_job,
    tiny_model,
    tiny_plan,
    tiny_rows,
    way_apart,
)

GPU = Device(kind="cuda", name="test", bfloat16=True, memory_bytes=80 << 30)
SOME = ["llama", "gemma2", "mpt", "granitemoe", "mistral_window", "biogpt"]


def trained(speed: str, model: Any, **training: Any) -> tuple[list[float], dict[str, Any]]:
    """Losses and gradient norms of two steps, and what was trained."""
    plan = tiny_plan(steps=2, speed=speed, **training)
    result = train(tiny_job(model, tiny_rows(), plan), Silence())
    assert result.trainer == speed
    found = [number for point in result.losses for number in (point.loss, point.grad_norm)]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training
    return found, {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", SOME)
def test_full_fine_tuning_is_that_of_the_plain_path(name: str) -> None:
    numbers = []
    for speed in ("plain", "recorded"):
        model = tiny_causal(name)
        model.requires_grad_(requires_grad=True)
        numbers.append(trained(speed, model)[0])
    assert numbers[1] == pytest.approx(numbers[0], abs=1e-4)


@pytest.mark.parametrize(("name", "fused"), [("llama", 5), ("qwen3", 9), ("gemma2", 0), ("mpt", 0)])
def test_norms_are_one_kernel_where_that_is_what_they_compute(name: str, fused: int) -> None:
    model = tiny_causal(name).eval()
    ids = torch.arange(12).view(1, -1)
    plain = model(ids).logits
    with fused_norms(model) as count:
        assert torch.allclose(model(ids).logits, plain, atol=1e-5)
    assert count == fused
    assert torch.equal(model(ids).logits, plain)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("lora", [{"use_dora": True}, {"target_modules": ["lm_head", "q_proj"]}])
def test_adapters_learn_what_they_learn_on_the_plain_path(
    lora: dict[str, Any], recompute: bool
) -> None:
    (plain, weights), (recorded, others) = (
        trained(speed, tiny_model(**lora), gradient_checkpointing=recompute)
        for speed in ("plain", "recorded")
    )
    assert recorded == pytest.approx(plain, abs=1e-4)
    assert way_apart(others, weights, tiny_model(**lora)) < SAME_WAY


def test_other_methods_than_lora_are_taken() -> None:
    found = []
    for speed in ("plain", "recorded"):
        config = IA3Config(
            task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"],
            feedforward_modules=["down_proj"],
        )  # fmt: skip
        found.append(trained(speed, get_peft_model(tiny_causal("llama"), config))[0])
    assert found[1] == pytest.approx(found[0], abs=1e-4)


def test_filling_a_batch_up_changes_neither_loss_nor_gradients() -> None:
    model, rows = tiny_model(), tiny_rows(count=3)
    step = AutogradStep(model, tiny_plan(speed="recorded"))
    exact = PaddedSize.of(rows)
    room = exact.covering(PaddedSize(rows=5, longest=40, labelled=90))
    found = []
    for size in (None, room):
        batch = step.batch(rows, size)
        model.zero_grad(set_to_none=False)
        with torch.no_grad():  # as a recording calls it
            loss = step.accumulate(batch, None, torch.tensor(0.5))
        gradients = [p.grad.clone() for p in model.parameters() if p.requires_grad]
        found.append((float(loss), gradients))
    assert batch.ids.shape == (5, 40)
    assert room.tokens == 200 > exact.tokens
    assert found[1][0] == pytest.approx(found[0][0], abs=ROUNDING)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert (one - other).norm() < 1e-4 * one.norm()


def test_a_padded_batch_names_the_states_that_predict_labelled_tokens() -> None:
    rows = tiny_rows(count=2)
    batch = make_padded_batch(rows, pad_id=7)
    width = batch.ids.shape[1]
    wanted = [
        (index * width + at - 1, int(row.labels[at]))
        for index, row in enumerate(rows)
        for at in np.flatnonzero(row.labels != IGNORED)
        if at > 0
    ]
    assert list(zip(batch.where.tolist(), batch.targets.tolist(), strict=True)) == wanted
    short = min(rows, key=lambda row: len(row.input_ids))
    assert (batch.ids == 7).any(), f"a row of {len(short.input_ids)} tokens is padded"


def test_it_is_what_a_gpu_falls_back_to() -> None:
    plan = planned("full_finetune", "training.speed=fast", device=GPU)
    (found,) = [item for item in plan.substitutions if item.key == "training.speed"]
    assert (found.asked, found.used) == ("fast", "recorded")
    assert found.reason == "the fast path does not take full fine-tuning"
    assert choose_path(plan) == plan


@pytest.mark.parametrize(
    ("variant", "setting", "reason"),
    [
        ("full_finetune", "training.packing=true", "packed rows"),
        ("lora_bf16", "adapter.lora_dropout=0.1", "adapter dropout"),
        ("lora_int8", "training.packing=false", "int8 layers"),
        ("adalora", "training.packing=false", "ADALORA adapters"),
    ],
)
def test_what_differs_from_step_to_step_is_left_to_the_plain_path(
    variant: str, setting: str, reason: str
) -> None:
    plan = planned(variant, "training.speed=fast", setting, device=GPU)
    assert plan.training.speed == "plain"
    (found,) = [item for item in plan.substitutions if item.key == "training.speed"]
    assert f"the recorded path does not take {reason}" in found.reason


def test_a_cpu_has_nothing_to_record() -> None:
    assert planned("full_finetune", "training.speed=recorded").training.speed == "plain"


def test_an_adapter_that_draws_at_every_step_is_left_to_the_plain_path() -> None:
    plan = planned("pvera", "training.speed=recorded", device=GPU)
    assert plan.training.speed == "plain"


def test_gradients_are_foreseen_once() -> None:
    settings = ("training.speed=recorded", "budget.batch_size=2", "training.micro_batch_size=2")
    plan = planned("full_finetune", *settings, device=GPU)
    assert plan.training.speed == "recorded"
    largest = MicroBatch(longest=64, tokens=128)
    fresh, kept = (path.footprint(plan, largest, 0).backward for path in (PLAIN, RECORDED))
    weights = 4 * 134_515_008  # trained in float32; the plain path makes gradients afresh
    assert 0.5 * weights < fresh - kept <= 1.1 * weights


@pytest.mark.parametrize(("launched", "recorded", "made"), [(12, 8, 0), (12, 12, 0), (8, 12, 1)])
def test_a_recorded_step_makes_no_mask_that_a_launched_one_of_such_rows_did_without(
    launched: int, recorded: int, made: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is played: a mask is asked for, and nobody knows but from a launched step."""
    model = tiny_model()
    step = AutogradStep(model, tiny_plan(speed="recorded"))
    asked: list[dict[str, Any]] = []
    interface = masking_utils.ALL_MASK_ATTENTION_FUNCTIONS
    name = model.config._attn_implementation

    def make(**settings: Any) -> Any:
        asked.append(settings)
        return None if len(asked) == 1 else "a mask"

    def a_pass(tokens: int, *, recording: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: recording)
        ids: Any = SimpleNamespace(is_cuda=True, shape=(2, tokens))
        with replaced(interface, name, make), step._without_needless_masks(ids):
            found = interface[name](q_length=tokens)
            assert (found is None) == (len(asked) == 1)

    a_pass(launched, recording=False)
    a_pass(recorded, recording=True)
    assert len(asked) == 1 + made
