"""Promises: what a working pair of method and base holds beyond its training."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from harness.records.events import Silence
from harness.score.engine import FastLM, PlainLM
from harness.score.likelihood import Likelihood
from harness.spec.methods import READS_ROWS, TAKES_START_OUT, initialisation
from harness.spec.model import FolderSource
from harness.spec.plan import Plan
from harness.train.path import train
from harness.weights.load import load_tokenizer
from tests.methods.trial import Again, begin, check_pair, same
from tests.train.test_checkpoint import Notes

KILLED_AFTER = 2  # steps of three
QUESTIONS = {
    "the cat sat on the mat and the dog": (" sat", " ran away", " on the mat and the cat"),
    "one two three": (" four", " one two three"),
}


def check_cell(plan: Plan) -> Again:
    """All that is asked of a working pair, on the model of ``plan``."""
    trained = check_pair(plan)
    assert trained.last_loss < trained.own_loss, "the loss has not fallen"
    check_resumed(plan, trained)
    check_items(plan, trained.model)
    return trained


def check_resumed(plan: Plan, trained: Again) -> None:
    """A training that was killed and resumed ends in the same bits as one that was not."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with pytest.raises(KeyboardInterrupt):
            train(begin(plan, checkpoint=folder), Notes(KILLED_AFTER))
        assert any(folder.iterdir()), "no checkpoint"
        resumed = begin(plan, checkpoint=folder)
        losses = [point.loss for point in train(resumed, Silence()).losses]
    # a decomposition of the base carries the last bit, where memory lies decides, into the start
    started = initialisation(plan.adapter).startswith((*TAKES_START_OUT, *READS_ROWS))
    expected = pytest.approx(trained.losses, abs=1e-4) if started else trained.losses
    assert losses == expected, f"losses {losses} after resuming, {trained.losses} without"
    weights = dict(resumed.model.named_parameters())
    for name, weight in trained.model.named_parameters():
        if weight.requires_grad and not started:
            assert same(weight, weights[name]), f"{name} has other bits after resuming"


def check_items(plan: Plan, model: Any) -> None:
    """The fast engine gives each item the score that lm-eval's own backend gives it."""
    from lm_eval.api.instance import Instance

    assert isinstance(plan.model.source, FolderSource)
    tokenizer = load_tokenizer(Path(plan.model.source.path))
    asked = [(context, ending) for context, endings in QUESTIONS.items() for ending in endings]
    items = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(asked)]
    theirs = PlainLM(model, tokenizer).loglikelihood(items, disable_tqdm=True)
    fast = FastLM(model, tokenizer, Likelihood(model, 512, Silence()))
    ours = fast.loglikelihood(items, disable_tqdm=True)
    exact = plan.quantization.type != "int8"  # its results depend on what is in the batch
    for (one, greedy), (other, greedy_too) in zip(ours, theirs, strict=True):
        close = 1e-4 if exact else 0.1
        assert abs(one - other) <= close, f"scored {one}, by lm-eval's own backend {other}"
        assert greedy == greedy_too or not exact, "another greedy answer"
