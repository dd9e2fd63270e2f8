"""Inputs of checkpointed layers that wait on the host: fewer bytes on the device, the same sums."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.records.events import Silence
from harness.spec.gpus import planned_gpu
from harness.train.path import train
from harness.train.sft import offload
from harness.train.sft.footprint import rehearse_training
from tests.planned import planned
from tests.train.tiny import SHAPE, tiny_job, tiny_model, tiny_plan, tiny_rows

LAYERS = int(SHAPE["num_hidden_layers"])


def test_the_plain_path_learns_the_same_and_only_inputs_of_layers_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left: list[tuple[int, ...]] = []
    leave = offload._leave

    def seen(tensor: torch.Tensor) -> Any:
        left.append(tuple(tensor.shape))
        return leave(tensor)

    monkeypatch.setattr(offload, "_leave", seen)
    found = []
    for away in (False, True):
        model, plan = tiny_model(), tiny_plan(steps=2, gradient_checkpointing=True)
        changed = plan.training.model_copy(update={"activation_offload": away})
        result = train(
            tiny_job(model, tiny_rows(), plan.model_copy(update={"training": changed})), Silence()
        )
        weights = [weight.clone() for weight in model.parameters() if weight.requires_grad]
        found.append(([point.loss for point in result.losses], weights))
    assert found[0][0] == found[1][0]
    assert all(map(torch.equal, found[0][1], found[1][1]))
    assert len(left) == 2 * 2 * LAYERS, "two steps of two micro-batches"
    assert all(shape[-1] == SHAPE["hidden_size"] for shape in left)


def test_a_rehearsed_step_keeps_no_input_on_the_device_but_the_first_layers() -> None:
    """Autograd holds that one: it has asked for its gradient."""
    settings = ("training.gradient_checkpointing=true", "training.speed=plain")
    on, off = (
        planned("lora_bf16", *settings, *more, device=planned_gpu("h100"))
        for more in ((), ("training.activation_offload=true",))
    )
    kept, away = (rehearse_training(plan, 2, 512) for plan in (on, off))
    one = 2 * 512 * 576 * 2  # of SmolLM2
    assert kept.saved - away.saved == 29 * one
