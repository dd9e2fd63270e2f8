"""Plans that train together: each is what it would have been alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import DivergedError
from harness.records.events import Silence
from harness.train.checkpoint import trainable_weights
from harness.train.path import train
from harness.train.together.loop import Member, Outcome, train_together
from harness.train.together.start import AdapterStart
from tests.train.test_train import StopAfter
from tests.train.tiny import (
    ROUNDING,
    SAME_WAY,
    tiny_job,
    tiny_model,
    tiny_plan,
    tiny_rows,
    way_apart,
)

ONE = {"seed": 0, "rate": 1e-3, "r": 4, "lora_alpha": 8}
OTHERS: list[dict[str, Any]] = [
    ONE,
    {**ONE, "rate": 5e-3},
    {**ONE, "r": 16, "lora_alpha": 4},
    {**ONE, "r": 3, "seed": 1},
]
ROWS = tiny_rows(conversations=2)


pytestmark = pytest.mark.usefixtures("one_thread")


def plan_of(one: dict[str, Any], **training: Any) -> Any:
    plan = tiny_plan(steps=5, speed="fast", learning_rate=one["rate"], **training)
    return plan.model_copy(update={"seed": one["seed"]})


def model_of(family: str, one: dict[str, Any], **lora: Any) -> Any:
    return tiny_model(family, r=one["r"], lora_alpha=one["lora_alpha"], **lora)


def alone(family: str, one: dict[str, Any], lora: dict[str, Any], **training: Any) -> Any:
    model = model_of(family, one, **lora)
    result = train(tiny_job(model, ROWS, plan_of(one, **training)), Silence())
    return result, trainable_weights(model)


def members(
    family: str,
    ones: list[dict[str, Any]],
    lora: dict[str, Any],
    folder: Path | None = None,
    progress: Silence | None = None,
    **training: Any,
) -> list[Member]:
    shared = model_of(family, ones[0], **lora)
    made = []
    for index, one in enumerate(ones):
        start = AdapterStart.of(model_of(family, one, **lora))
        more = {} if folder is None else {"checkpoint": folder / str(index)}
        job = tiny_job(shared, ROWS, plan_of(one, **training), **more)
        made.append(Member(job, start, progress or Silence()))
    return made


def check_equal(found: Outcome, family: str, one: dict[str, Any], lora: Any, **more: Any) -> None:
    result, weights = alone(family, one, lora, **more)
    assert found.result is not None
    losses = [point.loss for point in found.result.losses]
    wanted = [point.loss for point in result.losses]
    assert losses[0] == pytest.approx(wanted[0], abs=ROUNDING)
    assert losses == pytest.approx(wanted, abs=1e-3)
    norms = [point.grad_norm for point in found.result.losses]
    assert norms == pytest.approx([point.grad_norm for point in result.losses], rel=1e-2)
    rates = [point.learning_rate for point in found.result.losses]
    assert rates == [point.learning_rate for point in result.losses]
    assert found.result.tokens == result.tokens
    assert found.weights.keys() == weights.keys()
    assert way_apart(found.weights, weights, model_of(family, one, **lora)) < SAME_WAY


@pytest.mark.parametrize(
    ("family", "training", "lora"),
    [
        ("llama", {"schedule": "linear", "warmup_steps": 2}, {}),
        ("phi", {"gradient_checkpointing": True}, {}),
        ("llama", {}, {"target_modules": ["q_proj", "v_proj", "down_proj"]}),
    ],
)
def test_each_is_what_it_would_have_been_alone(
    family: str, training: dict[str, Any], lora: dict[str, Any]
) -> None:
    found = train_together(members(family, OTHERS, lora, **training))

    assert len(found) == len(OTHERS)
    for outcome, one in zip(found, OTHERS, strict=True):
        check_equal(outcome, family, one, lora, **training)
    last = [outcome.result.losses[-1].loss for outcome in found if outcome.result]
    assert len(set(last)) == len(OTHERS)


def test_one_whose_loss_is_not_finite_leaves_and_the_others_go_on() -> None:
    ones = [ONE, {**ONE, "rate": 1e30}]

    good, bad = train_together(members("llama", ones, {}))

    assert isinstance(bad.error, DivergedError)
    assert bad.result is None
    check_equal(good, "llama", ONE, {})


def test_a_group_that_was_cut_short_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    unbroken = train_together(members("llama", OTHERS, {}))

    with pytest.raises(KeyboardInterrupt):
        train_together(members("llama", OTHERS, {}, tmp_path, StopAfter(2)))
    found = train_together(members("llama", OTHERS, {}, tmp_path))

    for one, whole in zip(found, unbroken, strict=True):
        assert one.result is not None
        assert whole.result is not None
        assert [p.loss for p in one.result.losses] == [p.loss for p in whole.result.losses]
        for name, weight in whole.weights.items():
            assert torch.equal(one.weights[name], weight), name


def test_what_another_group_has_left_is_not_gone_on_from(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_together(members("llama", OTHERS[:3], {}, tmp_path, StopAfter(2)))

    found = train_together(members("llama", OTHERS[:2], {}, tmp_path))

    check_equal(found[0], "llama", ONE, {})
