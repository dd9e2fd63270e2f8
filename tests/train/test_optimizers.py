"""Every optimizer lowers the loss, and a resumed training comes to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from harness.errors import UserError
from harness.records.events import Silence
from harness.spec.methods import optimizer_refusal
from harness.spec.variant import Adapter
from harness.train.optimizer import make_optimizer
from harness.train.path import train
from harness.weights.adapter import hold_still
from tests.planned import planned
from tests.train.test_checkpoint import Notes
from tests.train.tiny import tiny_job, tiny_model, tiny_plan, tiny_rows

ROWS = tiny_rows()


def job(optimizer: str, **more: Any) -> Any:
    plan = tiny_plan(steps=5, optimizer=optimizer, learning_rate=1e-2)
    model = tiny_model()
    hold_still(model, "lora_A" if optimizer == "lorafa" else None)
    return tiny_job(model, ROWS, plan, **more)


def values(model: Any) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in model.parameters() if weight.requires_grad]


@pytest.mark.parametrize("optimizer", ["loraplus", "lorafa", "muon", "adafactor"])
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path, optimizer: str) -> None:
    whole = job(optimizer)
    start = values(whole.model)
    losses = [point.loss for point in train(whole, Silence()).losses]
    assert len(set(losses)) == 5
    assert any(not torch.equal(a, b) for a, b in zip(start, values(whole.model), strict=True))
    with pytest.raises(KeyboardInterrupt):
        train(job(optimizer, checkpoint=tmp_path), Notes(3))
    resumed = job(optimizer, checkpoint=tmp_path)
    notes = Notes()
    train(resumed, notes)
    assert notes.texts == []
    assert notes.steps < 5
    pairs = zip(values(whole.model), values(resumed.model), strict=True)
    assert all(torch.equal(expected, found) for expected, found in pairs)


def test_lora_plus_gives_b_sixteen_times_the_rate() -> None:
    training = job("loraplus")
    groups = make_optimizer(training.model, training.plan).param_groups
    rates = {group["lr"]: len(group["params"]) for group in groups}
    assert rates == {1e-2: 21, 16e-2: 21}


def test_lora_plus_trains_an_adapter_of_the_embedding_at_the_rate_asked_for() -> None:
    """PEFT's own default is 1e-6, whatever rate a search tries."""
    training = job("loraplus")
    config = LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"])
    model = get_peft_model(tiny_model().unload(), config)
    groups = make_optimizer(model, training.plan).param_groups
    assert {group["lr"] for group in groups} == {1e-2, 16e-2}


def test_muon_takes_hidden_matrices_and_adamw_the_rest() -> None:
    from harness.train.muon import MuonAndAdamW

    base = tiny_model().get_base_model()
    base.requires_grad_(requires_grad=True)
    groups = MuonAndAdamW(base, 1e-3, 0.0).param_groups
    inner, rest = (group["params"] for group in groups)
    assert all(weight.ndim == 2 for weight in inner)
    assert any(weight is base.get_input_embeddings().weight for weight in rest)


@pytest.mark.parametrize(
    ("optimizer", "variant", "said"),
    [
        ("loraplus", "full_finetune", "two matrices of LoRA"),
        ("lorafa", "vera", "two matrices of LoRA"),
        ("lorafa", "lora_dora", "nothing beside them"),
        ("galore", "lora_bf16", "an adapter's are small"),
    ],
)
def test_what_an_optimizer_cannot_train_is_refused_when_the_plan_is_made(
    optimizer: str, variant: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        planned(variant, f"training.optimizer={optimizer}")


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.spec.methods.find_spec", lambda _name: None)
    assert "needs the package galore_torch" in str(optimizer_refusal("galore", None))
    assert optimizer_refusal("adamw", Adapter()) is None
