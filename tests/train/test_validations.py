"""Validation while training: it changes nothing, its best weights can be kept, and it can stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.corpus.render import TokenSequence
from harness.errors import RunError
from harness.records.events import Silence
from harness.records.record import TrainResult
from harness.records.validation import ValidationPoint
from harness.score.validation import ValidationLoss
from harness.spec.plan import Plan
from harness.spec.suite import Validation
from harness.train.checkpoint import load_state
from harness.train.job import TrainJob
from harness.train.path import train
from tests.train.test_checkpoint import Notes
from tests.train.tiny import tiny_job, tiny_model, tiny_plan, tiny_rows

ROWS = tiny_rows()
PROBE = torch.arange(12)[None]
STEPS = 10
PATHS = pytest.mark.parametrize("speed", ["plain", "fast"])


def conversations(rows: Sequence[Any] = ROWS[:3]) -> list[TokenSequence]:
    """Few of the rows that are trained on: their loss falls at first, and then not steadily."""
    return [
        TokenSequence(f"c{index}", f"t{index}", row.input_ids, row.labels != -100)
        for index, row in enumerate(rows)
    ]


@dataclass
class Real:
    """Takes real losses of a model, and remembers its logits at each."""

    loss: ValidationLoss
    logits: dict[int, torch.Tensor] = field(default_factory=dict)

    def __call__(self, step: int, tokens: int) -> ValidationPoint:
        self.logits[step] = logits_of(self.loss.model)
        return ValidationPoint(step=step, tokens=tokens, loss=self.loss.take(), seconds=0.0)


def logits_of(model: Any) -> torch.Tensor:
    training = model.training
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(input_ids=PROBE).logits.clone()
    model.train(training)
    return found


def plan_of(speed: str, rate: float = 2e-3, steps: int = STEPS, **validation: Any) -> Plan:
    plan = tiny_plan(steps=steps, speed=speed, learning_rate=rate)
    return plan.model_copy(update={"validation": Validation(**validation)})


def job_of(plan: Plan, folder: Path | None = None) -> tuple[TrainJob, Real]:
    model = tiny_model(lora_dropout=0.1 if plan.training.speed == "plain" else 0.0)
    real = Real(ValidationLoss(model, conversations(), plan.score))
    job = tiny_job(model, ROWS, plan, checkpoint=folder, checkpoint_seconds=0.0)
    return replace(job, validate=real), real


def curve(result: TrainResult) -> list[tuple[int, int, float]]:
    assert result.validation is not None
    return [(one.step, one.tokens, one.loss) for one in result.validation.points]


def losses(result: TrainResult) -> list[float]:
    return [point.loss for point in result.losses]


@PATHS
@pytest.mark.parametrize("checkpointing", [False, True])
def test_validation_changes_nothing_in_training(speed: str, checkpointing: bool) -> None:
    found = []
    for every in (0, 1):
        plan = plan_of(speed, every=every)
        training = plan.training.model_copy(update={"gradient_checkpointing": checkpointing})
        job, _ = job_of(plan.model_copy(update={"training": training}))
        job = job if every else replace(job, validate=None)
        result = train(job, Silence())
        found.append((losses(result), logits_of(job.model)))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


@PATHS
def test_the_curve_begins_before_training_and_ends_with_the_model_that_is_scored(
    speed: str,
) -> None:
    job, real = job_of(plan_of(speed, every=4))
    result = train(job, Silence())
    assert [step for step, _, _ in curve(result)] == [0, 4, 8, 10]
    assert [tokens for _, tokens, _ in curve(result)] == [
        sum(point.non_padding_tokens for point in result.losses[:step]) for step in (0, 4, 8, 10)
    ]
    assert curve(result)[-1][2] == real.loss.take(), "during training as after it, bit for bit"
    assert result.validation is not None
    assert (result.validation.kept_step, result.validation.stopped) == (10, "budget")


def test_the_plain_path_is_validated_by_the_models_own_forward_pass() -> None:
    """Accelerate wraps it in autocast where weights and products have different types."""
    plan = plan_of("plain", every=2, steps=2)
    precision = plan.precision.model_copy(update={"compute": "bfloat16"})
    job, real = job_of(plan.model_copy(update={"precision": precision}))
    result = train(job, Silence())
    assert curve(result)[-1][2] == real.loss.take()


@PATHS
def test_the_best_weights_are_those_of_their_step(speed: str) -> None:
    # At this rate the loss of step 4 is the lowest by far more than rounding makes of ten steps.
    job, real = job_of(plan_of(speed, rate=0.06, every=1, keep="best"))
    result = train(job, Silence())
    assert result.validation is not None
    kept = result.validation.kept_step
    assert kept == min(curve(result), key=lambda point: point[2])[0]
    assert 0 < kept < STEPS, "otherwise nothing is shown"
    assert torch.equal(logits_of(job.model), real.logits[kept])
    assert real.loss.take() == result.validation.lowest.loss


@PATHS
def test_training_stops_when_patience_ends(speed: str) -> None:
    job, _ = job_of(plan_of(speed, rate=0.03, every=1, patience=2))
    result = train(job, Silence())
    assert result.validation is not None
    assert result.validation.stopped == "patience"
    assert result.steps == result.validation.lowest.step + 2 == len(result.losses)
    assert result.tokens.non_padding == sum(point.non_padding_tokens for point in result.losses)
    assert result.validation.kept_step == result.steps, "the last weights unless the best are asked"


@PATHS
@pytest.mark.parametrize("stop_after", [1, 3, 6])
def test_curve_and_best_weights_survive_a_kill(tmp_path: Path, speed: str, stop_after: int) -> None:
    plan = plan_of(speed, rate=0.03, every=2, keep="best", patience=2)
    whole, _ = job_of(plan)
    expected = train(whole, Silence())
    cut, _ = job_of(plan, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(cut, Notes(stop_after))
    saved = load_state(tmp_path, plan.fingerprint, cut.model, Silence())
    done = len(saved.points) if saved is not None else -1
    again, real = job_of(plan, tmp_path)
    result = train(again, Silence())
    assert losses(result) == losses(expected)
    assert curve(result) == curve(expected)
    assert result.validation is not None
    assert expected.validation is not None
    assert result.validation.kept_step == expected.validation.kept_step
    assert torch.equal(logits_of(again.model), logits_of(whole.model))
    assert min(real.logits) > done, "what was validated is not validated again"


@PATHS
def test_a_training_that_has_stopped_is_not_gone_on_with(tmp_path: Path, speed: str) -> None:
    plan = plan_of(speed, rate=0.03, every=1, keep="best", patience=1)
    first, _ = job_of(plan, tmp_path)
    expected = train(first, Silence())
    assert expected.steps < STEPS
    again, real = job_of(plan, tmp_path)
    notes = Notes()
    result = train(again, notes)
    assert (notes.steps, real.logits) == (0, {})
    assert (losses(result), curve(result)) == (losses(expected), curve(expected))
    assert torch.equal(logits_of(again.model), logits_of(first.model))


def test_ranks_that_were_moved_go_back_with_the_best_weights() -> None:
    """AdaLoRA saves the adapter by its rank pattern, which must be that of the kept weights."""
    from peft import AdaLoraConfig, get_peft_model

    from harness.spec.variant import Adapter

    fields = {"init_r": 4, "target_r": 2, "tinit": 1, "tfinal": 2, "deltaT": 1, "total_step": STEPS}
    base = tiny_model().unload()
    config = AdaLoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", **fields)
    plan = plan_of("plain", rate=0.5, every=1, keep="best")
    adapter = Adapter.model_validate({"type": "ADALORA", **fields})
    plan = plan.model_copy(update={"adapter": adapter})
    model = get_peft_model(base, config)
    patterns: dict[int, Any] = {}

    def validate(step: int, tokens: int) -> ValidationPoint:
        pattern = model.peft_config["default"].rank_pattern
        patterns[step] = {name: list(kept) for name, kept in (pattern or {}).items()}
        lowest_at_two = 1.0 + abs(step - 2)  # while ranks still move
        return ValidationPoint(step=step, tokens=tokens, loss=lowest_at_two, seconds=0.0)

    result = train(replace(tiny_job(model, ROWS, plan), validate=validate), Silence())
    assert result.validation is not None
    kept = result.validation.kept_step
    assert kept == 2
    found = {name: list(ranks) for name, ranks in (config.rank_pattern or {}).items()}
    assert found == patterns[kept]
    assert patterns[kept] != patterns[STEPS], "otherwise nothing is shown"


def test_a_path_that_takes_no_validation_losses_is_no_silent_success() -> None:
    job, _ = job_of(plan_of("plain", steps=1, every=0))  # nothing calls what validates
    with pytest.raises(RunError, match="does not take validation losses"):
        train(job, Silence())
