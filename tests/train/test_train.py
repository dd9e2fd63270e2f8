"""Both training paths: equal losses, exact boundaries, exact resumption."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from harness.errors import DivergedError, RunError
from harness.records.events import Silence
from harness.records.record import TrainResult
from harness.train.collate import collate
from harness.train.path import train
from harness.train.stream.blocks import LlamaBlock
from tests.train.tiny import (
    ROUNDING,
    SAME_WAY,
    tiny_job,
    tiny_model,
    tiny_plan,
    tiny_rows,
    way_apart,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def losses(result: TrainResult) -> list[float]:
    return [point.loss for point in result.losses]


@pytest.mark.parametrize(
    ("speed", "conversations"),
    [("plain", 1), ("fast", 1), ("recorded", 1), ("plain", 3), ("fast", 3)],
)
def test_accumulation_does_not_change_the_loss(speed: str, conversations: int) -> None:
    rows = tiny_rows(conversations=conversations)
    found = [
        losses(train(tiny_job(tiny_model(), rows, tiny_plan(micro=micro, speed=speed)), Silence()))
        for micro in (4, 2, 1)
    ]

    assert found[1] == pytest.approx(found[0], abs=1e-4)
    assert found[2] == pytest.approx(found[0], abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "phi"])
@pytest.mark.parametrize("recompute", [False, True])
def test_fast_and_plain_learn_the_same(family: str, recompute: bool) -> None:
    rows = tiny_rows(conversations=2)
    trained: dict[str, Any] = {}
    results = {}
    for speed in ("plain", "fast"):
        model = tiny_model(family)
        plan = tiny_plan(steps=6, speed=speed, gradient_checkpointing=recompute)
        results[speed] = train(tiny_job(model, rows, plan), Silence())
        trained[speed] = {n: p for n, p in model.named_parameters() if p.requires_grad}

    assert results["fast"].trainer == "fast"
    assert losses(results["fast"]) == pytest.approx(losses(results["plain"]), abs=1e-4)
    assert way_apart(trained["fast"], trained["plain"], tiny_model(family)) < SAME_WAY


def test_only_the_layers_that_are_not_kept_are_computed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    again: list[object] = []
    recompute = LlamaBlock.recompute

    def counted(block: LlamaBlock, x: Any, stream: Any, middle: Any = None) -> Any:
        again.append(block)
        return recompute(block, x, stream, middle)

    monkeypatch.setattr(LlamaBlock, "recompute", counted)
    found = {}
    for kept in (0, 1, 2, 3):
        again.clear()
        plan = tiny_plan(steps=1, micro=4, speed="fast", gradient_checkpointing=True)
        training = plan.training.model_copy(update={"kept_layers": kept})
        plan = plan.model_copy(update={"training": training})
        result = train(tiny_job(tiny_model(), tiny_rows(), plan), Silence())
        assert result.kept_layers == kept
        # a forward pass goes through it once for each of the three layers
        assert len(again) - 3 == 3 - kept
        found[kept] = (losses(result), result.losses[0].grad_norm)

    assert found[0] == found[1] == found[2] == found[3]


def test_the_loss_is_the_mean_over_the_assistant_tokens_of_the_batch() -> None:
    rows = tiny_rows()
    model = tiny_model().eval()
    job = tiny_job(model, rows, tiny_plan(steps=1))
    batch = collate(job.step_rows(0), pad_id=0)
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = model(**batch).logits
    expected = functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
    )

    assert losses(train(job, Silence()))[0] == pytest.approx(float(expected), abs=ROUNDING)


@pytest.mark.parametrize("speed", ["plain", "fast"])
def test_packed_conversations_do_not_see_each_other(speed: str) -> None:
    packed = tiny_rows(count=4, conversations=3)
    row_type = type(packed[0])
    single = []
    for row in packed:
        start = 0
        for size in row.lengths:
            part = slice(start, start + size)
            single.append(
                row_type(row.input_ids[part], row.labels[part], row.position_ids[part], (size,))
            )
            start += size
    together = train(
        tiny_job(tiny_model(), packed, tiny_plan(steps=1, batch=4, speed=speed)), Silence()
    )
    apart = train(
        tiny_job(tiny_model(), tuple(single), tiny_plan(steps=1, batch=12, speed=speed)), Silence()
    )

    assert losses(together) == pytest.approx(losses(apart), abs=ROUNDING)
    assert together.losses[0].grad_norm == pytest.approx(apart.losses[0].grad_norm, rel=1e-4)


class StopAfter(Silence):
    """A Progress that ends the process's work after some steps, as a kill would."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def advance(self, done: int, total: int, **numbers: float) -> None:  # noqa: ARG002
        if done > self.steps:
            raise KeyboardInterrupt


@pytest.mark.parametrize("speed", ["plain", "fast", "recorded"])
def test_a_resumed_run_ends_bit_for_bit_where_an_unbroken_one_does(
    speed: str, tmp_path: Path
) -> None:
    rows = tiny_rows()
    plan = tiny_plan(steps=6, speed=speed, schedule="cosine", warmup_steps=2)
    lora = {"lora_dropout": 0.1} if speed == "plain" else {}
    whole_model = tiny_model(**lora)
    whole = train(tiny_job(whole_model, rows, plan), Silence())
    settings = {"checkpoint": tmp_path, "checkpoint_seconds": 0.0}
    with pytest.raises(KeyboardInterrupt):
        train(tiny_job(tiny_model(**lora), rows, plan, **settings), StopAfter(3))
    torch.manual_seed(99)
    model = tiny_model(**lora)
    resumed = train(tiny_job(model, rows, plan, **settings), Silence())

    assert losses(resumed) == losses(whole)
    for (name, one), (_, other) in zip(
        model.named_parameters(), whole_model.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name


def test_a_finished_checkpoint_is_not_trained_again(tmp_path: Path) -> None:
    rows, plan = tiny_rows(), tiny_plan(steps=3)
    first_model, second_model = tiny_model(), tiny_model()
    first = train(tiny_job(first_model, rows, plan, checkpoint=tmp_path), Silence())
    second = train(tiny_job(second_model, rows, plan, checkpoint=tmp_path), StopAfter(0))

    assert second.losses == first.losses
    for one, other in zip(first_model.parameters(), second_model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("speed", ["plain", "fast"])
def test_a_disk_too_small_for_a_checkpoint_does_not_stop_training(
    speed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 GB of a full fine-tuning's state once ended a run whose training was done."""
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    notes: list[str] = []
    progress = Silence()
    monkeypatch.setattr(progress, "note", notes.append)
    settings = {"checkpoint": tmp_path / "checkpoint", "checkpoint_seconds": 0.0}
    plan = tiny_plan(steps=3, speed=speed)

    assert train(tiny_job(tiny_model(), tiny_rows(), plan, **settings), progress).steps == 3
    assert not (tmp_path / "checkpoint").exists()
    (note,) = [note for note in notes if note.startswith("no checkpoint")]
    assert note.endswith("1000 B are free")


def test_another_plans_checkpoint_is_left_alone(tmp_path: Path) -> None:
    rows = tiny_rows()
    train(tiny_job(tiny_model(), rows, tiny_plan(steps=2), checkpoint=tmp_path), Silence())
    other = tiny_job(tiny_model(), rows, tiny_plan(steps=3), checkpoint=tmp_path)
    assert train(other, Silence()).steps == 3


@pytest.mark.parametrize("speed", ["plain", "fast", "recorded"])
def test_a_loss_that_is_not_finite_ends_the_run_with_its_step(speed: str) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.get_base_model().model.norm.weight.fill_(math.inf)

    with pytest.raises(DivergedError, match="step 1"):
        train(tiny_job(model, tiny_rows(), tiny_plan(speed=speed)), Silence())


def test_the_plain_path_leaves_the_model_as_it_was_except_for_its_weights() -> None:
    model = tiny_model()
    base = model.get_base_model()
    base.config.eos_token_id = 7
    before = base.config.to_dict()
    plan = tiny_plan(steps=1, gradient_checkpointing=True)
    train(tiny_job(model, tiny_rows(), plan), Silence())

    assert base.config.to_dict() == before
    assert "forward" not in vars(base)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_adapters_on_a_quantized_base_keep_the_planned_dtype() -> None:
    model = tiny_model()
    model.is_loaded_in_4bit = True  # what makes SFTTrainer cast adapters to bfloat16
    train(tiny_job(model, tiny_rows(), tiny_plan(steps=1)), Silence())

    kinds = {p.dtype for n, p in model.named_parameters() if "lora" in n}
    assert kinds == {torch.float32}


def test_what_the_fast_path_does_not_take_is_an_error_if_planning_let_it_pass() -> None:
    model = tiny_model(lora_dropout=0.1)
    with pytest.raises(RunError, match="the fast path does not take adapter dropout"):
        train(tiny_job(model, tiny_rows(), tiny_plan(steps=1, speed="fast")), Silence())


def test_tokens_are_counted_with_and_without_padding() -> None:
    rows = tiny_rows()
    plain = train(tiny_job(tiny_model(), rows, tiny_plan(steps=2)), Silence()).tokens
    fast = train(tiny_job(tiny_model(), rows, tiny_plan(steps=2, speed="fast")), Silence()).tokens

    assert plain.non_padding == fast.non_padding == fast.padded < plain.padded
    assert plain.assistant == fast.assistant < plain.non_padding
