"""AdaLoRA's ranks move while it trains, and a resumed training moves them alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.records.events import Silence
from harness.train.allocation import allocation_of
from harness.train.collate import collate
from harness.train.path import train
from harness.weights.adapter import attach_adapter
from harness.weights.census import check_census, take_census
from harness.weights.shape import count_plan
from tests.methods.bench import Bench
from tests.methods.trial import base_model, make_job
from tests.train.test_checkpoint import Notes

STEPS = 6


def job(bench: Bench, compute: str = "float32", **more: Any) -> Any:
    settings = (f"budget.steps={STEPS}", "adapter.init_r=6", "adapter.target_r=2")
    plan = bench.plan("adalora", "llama", *settings)
    precision = plan.precision.model_copy(update={"compute": compute})
    plan = plan.model_copy(update={"precision": precision})
    return make_job(plan, attach_adapter(base_model(plan), plan, STEPS), **more)


def values(model: Any) -> dict[str, torch.Tensor]:
    return {n: w.detach().clone() for n, w in model.named_parameters() if w.requires_grad}


def test_ranks_are_taken_from_some_layers(bench: Bench) -> None:
    training = job(bench)
    config = training.model.peft_config["default"]
    assert config.total_step == STEPS
    train(training, Silence())
    kept = [sum(pattern) for pattern in config.rank_pattern.values()]
    assert sum(kept) < 6 * len(kept)
    singular = [w for n, w in training.model.named_parameters() if "lora_E" in n]
    assert any((weight == 0).any() for weight in singular)


def test_ranks_are_no_weights_on_a_base_of_sixteen_bits(bench: Bench) -> None:
    """PEFT makes them parameters that require gradients where it casts them to the base's type."""
    training = job(bench, compute="bfloat16")
    model = training.model
    check_census(take_census(model), training.plan, count_plan(training.plan))
    ranks = {n: w for n, w in model.named_parameters() if ".ranknum." in n}
    before = {name: weight.detach().clone() for name, weight in ranks.items()}
    assert before
    assert not any(weight.requires_grad for weight in ranks.values())
    begun = values(model)
    train(training, Silence())
    trained = values(model)
    assert any(not torch.equal(weight, trained[name]) for name, weight in begun.items())
    assert all(torch.equal(weight, before[name]) for name, weight in ranks.items())


def test_the_term_of_the_loss_is_pefts_own(bench: Bench) -> None:
    training = job(bench)
    batch = collate(training.step_rows(0), training.pad_id)
    allocation = allocation_of(training.model, training.plan)
    assert allocation is not None
    with torch.no_grad():
        whole = float(training.model.eval()(**batch).loss)
        penalty = float(allocation.penalty())
    plain = train(training, Silence()).losses[0].loss
    labelled = (batch["labels"][:, 1:] != -100).sum()
    assert labelled > 0
    assert plain + penalty == pytest.approx(whole, abs=1e-5)


def test_a_killed_training_goes_on_to_the_same_bits(bench: Bench, tmp_path: Path) -> None:
    whole = job(bench)
    train(whole, Silence())
    with pytest.raises(KeyboardInterrupt):
        train(job(bench, checkpoint=tmp_path), Notes(3))
    resumed = job(bench, checkpoint=tmp_path)
    train(resumed, Silence())
    expected, found = values(whole.model), values(resumed.model)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    patterns = [one.model.peft_config["default"].rank_pattern for one in (whole, resumed)]
    assert patterns[0] == patterns[1]
