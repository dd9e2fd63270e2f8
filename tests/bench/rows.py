"""Rows: what is measured, each with the peer that does the same work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lm_eval.api.instance import Instance

from harness.corpus.sequences import TrainingRow
from harness.records.events import Silence
from harness.score.engine import PlainLM
from harness.train.path import train
from harness.train.together.loop import Member, train_together
from harness.train.together.start import AdapterStart
from tests.score.conftest import fast_engine, make_model, make_tokenizer
from tests.train.tiny import tiny_job, tiny_model, tiny_plan, tiny_rows

Sides = tuple[Callable[[], Any], Callable[[], Any]]
STEPS = 6
TOGETHER = 4


def _rows() -> tuple[TrainingRow, ...]:
    return tiny_rows(count=24, conversations=4)


def _trained(speed: str) -> None:
    plan = tiny_plan(steps=STEPS, batch=8, micro=4, speed=speed)
    train(tiny_job(tiny_model(), _rows(), plan), Silence())


def fast_path() -> Sides:
    """The fast path beside TRL's SFTTrainer."""
    return lambda: _trained("fast"), lambda: _trained("plain")


def _members(count: int) -> list[Member]:
    model = tiny_model()
    plan = tiny_plan(steps=STEPS, batch=8, micro=4, speed="fast")
    rates = [plan.training.model_copy(update={"learning_rate": 1e-4 * n}) for n in range(1, 9)]
    plans = [plan.model_copy(update={"training": rate}) for rate in rates[:count]]
    return [
        Member(tiny_job(model, _rows(), one), AdapterStart.of(model), Silence()) for one in plans
    ]


def together() -> Sides:
    """Adapters trained as one beside as many trained one after another."""

    def alone() -> None:
        for _ in range(TOGETHER):
            _trained("fast")

    return lambda: train_together(_members(TOGETHER)), alone


def choices() -> Sides:
    """Answers to choose from after long prompts, beside lm-eval's own backend."""
    model, tokenizer = make_model(), make_tokenizer()
    ours, peer = fast_engine(model, tokenizer), PlainLM(model, tokenizer)
    shots = "A question that stands before all others, and its answer.\n\n" * 12
    asked = [
        Instance("loglikelihood", {}, (f"{shots}Question {number}: which?", f" {answer}"), number)
        for number in range(6)
        for answer in ("the first", "the second", "the third", "none of them")
    ]
    return (
        lambda: ours.loglikelihood(asked, disable_tqdm=True),
        lambda: peer.loglikelihood(asked, disable_tqdm=True),
    )


ROWS: dict[str, Callable[[], Sides]] = {
    "training: fast path / SFTTrainer": fast_path,
    "scoring: choices / lm-eval's backend": choices,
    "training: 4 adapters as one / one by one": together,
}
