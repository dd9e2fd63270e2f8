"""Ledger: what a training says of its steps, and that a loss which is no number ends it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from harness.corpus.sequences import IGNORED, TrainingRow
from harness.errors import DivergedError
from harness.records.record import LossPoint
from harness.train.ledger import Ledger, StepTokens
from tests.forecast.phi_plans import make


def row(length: int, labelled: int) -> TrainingRow:
    labels = np.full(length, 7, dtype=np.int32)
    labels[: length - labelled] = IGNORED
    places = np.arange(length, dtype=np.int32)
    return TrainingRow(np.full(length, 7, dtype=np.int32), labels, places, (length,))


class Heard:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int, dict[str, float]]] = []

    def note(self, text: str) -> None:
        raise AssertionError(text)

    def advance(self, done: int, total: int, **numbers: float) -> None:
        self.told.append((done, total, numbers))


STEPS = [StepTokens(10, 40, 60, 9), StepTokens(20, 50, 70, 9), StepTokens(30, 60, 80, 9)]


def point(step: int, **changes: object) -> LossPoint:
    fields = {
        "step": step,
        "loss": 2.0,
        "learning_rate": 1e-4,
        "grad_norm": 1.0,
        "seconds": 0.5,
        "non_padding_tokens": 40,
    }
    return LossPoint.model_validate(fields | changes)


@pytest.mark.parametrize(
    ("micro", "padded"),
    [(None, 5 + 3 + 8 + 2), (1, 5 + 3 + 8 + 2), (2, 2 * 5 + 2 * 8), (3, 3 * 8 + 2), (4, 4 * 8)],
)
def test_rows_are_padded_to_the_longest_of_their_micro_batch(
    micro: int | None, padded: int
) -> None:
    rows = [row(5, 2), row(3, 1), row(8, 4), row(2, 1)]
    pairs = 25 + 9 + 64 + 4
    assert StepTokens.of(rows, micro) == StepTokens(2 + 1 + 4 + 1, 18, padded, pairs)


@pytest.mark.parametrize("lengths", [(512,) * 4, (300, 700, 24, 1024)])
def test_packed_conversations_are_work_of_their_own_length(lengths: tuple[int, ...]) -> None:
    """A row of several conversations asks for less attention than one of its whole length."""
    plan = make("lora_bf16")
    packed = replace(row(sum(lengths), 600), lengths=lengths)
    apart = [row(length, round(length * 600 / 2048)) for length in lengths]
    rates = []
    for rows in ([packed], apart, [row(2048, 600)]):
        done = [point(step, seconds=1.0, non_padding_tokens=2048) for step in (1, 2, 3)]
        ledger = Ledger([StepTokens.of(rows, None)] * 3, Heard(), done)
        throughput = ledger.result("plain", 0, plan=plan).throughput
        assert throughput.flops_per_second is not None
        rates.append(throughput.flops_per_second)
    assert rates[0] == pytest.approx(rates[1])
    assert rates[0] < 0.99 * rates[2]


def test_every_step_is_told_with_its_loss_and_its_rate() -> None:
    heard = Heard()
    ledger = Ledger(STEPS, heard)
    ledger.start_step()
    ledger.finish_step(2.5, 1e-4, 0.7)
    ledger.finish_step(2.4, 2e-4, None)
    assert ledger.done == 2
    assert ledger.tokens == 40 + 50
    assert [(done, total) for done, total, _ in heard.told] == [(1, 3), (2, 3)]
    assert heard.told[0][2]["loss"] == 2.5
    assert heard.told[0][2]["tokens_per_second"] > 0
    first, second = ledger.points
    assert (first.step, first.learning_rate, first.grad_norm) == (1, 1e-4, 0.7)
    assert second.grad_norm is None


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_ends_the_training_at_its_step(loss: float) -> None:
    ledger = Ledger(STEPS, Heard(), [point(1)])
    with pytest.raises(DivergedError, match=f"the loss at step 2 is {loss}") as caught:
        ledger.finish_step(loss, 1e-4, 1.0)
    assert "step 2 of 3" in str(caught.value)
    assert "lower training.learning_rate" in str(caught.value)
    assert ledger.done == 1, "the step is not entered"


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_a_norm_that_is_no_number_is_unknown_and_no_reason_to_stop(norm: float) -> None:
    ledger = Ledger(STEPS, Heard())
    ledger.finish_step(2.0, 1e-4, norm)
    assert ledger.points[0].grad_norm is None


def test_steps_of_an_earlier_attempt_count() -> None:
    ledger = Ledger(STEPS, Heard(), [point(1), point(2, non_padding_tokens=50)])
    assert (ledger.done, ledger.tokens) == (2, 90)
    ledger.finish_step(1.5, 1e-4, 1.0)
    result = ledger.result("plain", truncated_tokens=5, compile_seconds=1.5)
    assert result.steps == 3
    assert (result.tokens.assistant, result.tokens.non_padding) == (60, 150)
    assert (result.tokens.padded, result.tokens.truncated) == (210, 5)
    assert (result.trainer, result.compile_seconds) == ("plain", 1.5)
    assert [one.step for one in result.losses] == [1, 2, 3]


def test_a_training_that_stopped_early_counts_what_it_saw() -> None:
    result = Ledger(STEPS, Heard(), [point(1)]).result("plain", 0)
    assert (result.steps, result.tokens.assistant, result.tokens.padded) == (1, 10, 60)
    assert result.throughput.median is None or result.throughput.median > 0
