"""ValidationResult: the best of a training's validations, and the loss that judges a trial."""

from __future__ import annotations

import math

import pytest

from harness.records.record import Score
from harness.records.validation import ValidationPoint, ValidationResult, validation_loss
from harness.spec.plan import Plan
from tests.planned import planned
from tests.store_records import record_of

TRIAL = planned("lora_bf16", "score.split=validation", "corpus.validation_fraction=0.2")
VERDICT = planned("lora_bf16")


def point(step: int, loss: float) -> ValidationPoint:
    return ValidationPoint(step=step, tokens=step * 10, loss=loss, seconds=1.0)


def perplexity(task: str, value: float) -> Score:
    return Score(
        task=task,
        metric="perplexity",
        stage="after",
        value=value,
        standard_error=None,
        n=3,
        unit="per token",
        direction="lower",
        transform="exp",
    )


def loss(plan: Plan, *scores: Score, status: str = "ok") -> float:
    return validation_loss(record_of(plan, scores=scores, status=status))


def test_the_first_of_equal_losses_is_the_lowest() -> None:
    points = (point(0, 3.0), point(4, 2.0), point(8, 2.5), point(12, 2.0))
    found = ValidationResult(points=points, kept_step=4, stopped="budget")
    assert found.lowest.step == 4


def test_a_trial_s_loss_is_in_nats_a_token() -> None:
    assert loss(TRIAL, perplexity("validation", 20.0)) == pytest.approx(math.log(20.0))


@pytest.mark.parametrize("status", ["failed", "oom", "diverged"])
def test_a_trial_that_did_not_end_well_is_the_worst_there_is(status: str) -> None:
    assert loss(TRIAL, perplexity("validation", 20.0), status=status) == math.inf


def test_a_trial_without_its_score_is_too() -> None:
    assert loss(TRIAL) == math.inf


def test_nothing_is_chosen_by_the_held_out_split() -> None:
    with pytest.raises(ValueError, match="was scored on the held-out split: not a trial"):
        loss(VERDICT, perplexity("held_out", 20.0))
    with pytest.raises(ValueError, match="not a trial"):
        loss(TRIAL, perplexity("validation", 20.0), perplexity("held_out", 20.0))
