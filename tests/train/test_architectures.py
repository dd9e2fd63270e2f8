"""Training on every architecture: the loss is the model's own, and nothing random is left in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.records.events import Silence
from harness.train.collate import collate
from harness.train.optimizer import silence_base_dropout
from harness.train.path import train
from harness.weights.wrapping import wrap
from tests.architectures import ARCHITECTURES, tiny_causal
from tests.train.tiny import ROUNDING, tiny_job, tiny_plan, tiny_rows

# PEFT refuses "all-linear" on layers whose kernels read the weights themselves.
MIXERS = {"falcon_h1": ["in_proj"], "mamba2": ["in_proj"]}
SCALED = {"granite", "granitemoe", "cohere", "cohere2", "gemma2", "falcon_h1", "recurrent_gemma"}


def adapted(name: str) -> Any:
    plan = tiny_plan()
    assert plan.adapter is not None
    changes = {"target_modules": MIXERS[name]} if name in MIXERS else {}
    return wrap(tiny_causal(name), plan.adapter.model_copy(update=changes))


def own_loss(model: Any, job: Any) -> float:
    """Mean over the labelled tokens of the first step, by transformers' own forward pass."""
    batch = collate(job.step_rows(0), pad_id=0)
    with torch.no_grad():
        return float(model.eval()(**batch, use_cache=False).loss)


@pytest.mark.parametrize("method", ["adapter", "full"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_first_loss_is_that_of_transformers_own_forward_pass(name: str, method: str) -> None:
    model = adapted(name) if method == "adapter" else tiny_causal(name)
    job = tiny_job(model, tiny_rows(), tiny_plan(steps=2, batch=4, micro=4))
    expected = own_loss(model, job)
    result = train(job, Silence())
    assert result.losses[0].loss == pytest.approx(expected, abs=ROUNDING)
    assert result.losses[0].grad_norm


@pytest.mark.parametrize("name", sorted(SCALED))
def test_gradients_through_scaled_and_capped_logits_are_autograds(name: str) -> None:
    from harness.train.sft.logits import OwnLogits
    from harness.train.sft.loss import summed_loss

    batch = collate(tiny_rows(count=4), pad_id=0)
    grads = []
    for own in (True, False):
        model = adapted(name).eval()
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1, generator=torch.manual_seed(1))
        if own:
            inputs = {key: value for key, value in batch.items() if key != "labels"}
            logits = OwnLogits(model.get_base_model())
            assert not logits.linear
            loss = summed_loss(logits.hidden(**inputs), logits, batch["labels"], chunk=7)
            loss = loss / (batch["labels"] != -100).sum()
        else:
            loss = model(**batch, use_cache=False).loss
        loss.backward()
        grads.append([p.grad for p in model.parameters() if p.requires_grad])
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_nothing_random_is_left_in_a_forward_pass(name: str) -> None:
    model = adapted(name)
    silence_base_dropout(model)
    ids = torch.arange(3, 43)[None].repeat(4, 1)
    model.train()
    with torch.no_grad():
        first, second = (model(input_ids=ids, use_cache=False).logits for _ in range(2))
    assert torch.equal(first, second)
