"""Promises: what a working pair of method and base holds beyond its training."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import Unpredicted
from harness.records.events import Silence
from harness.score.engine import FastLM, PlainLM
from harness.score.likelihood import Likelihood
from harness.spec.methods import READS_ROWS, TAKES_START_OUT, initialisation, needs_of
from harness.spec.model import FolderSource
from harness.spec.plan import Plan
from harness.train.path import train
from harness.weights.census import check_census, take_census
from harness.weights.load import load_tokenizer
from harness.weights.shape import count_plan
from tests.methods.trial import Again, begin, check_pair, same
from tests.train.test_checkpoint import Notes

KILLED_AFTER = 2  # steps of three
TOKENS, SEEN = 24, 15  # of a row, and of these the first whose logits are looked at
QUESTIONS = {
    "the cat sat on the mat and the dog": (" sat", " ran away", " on the mat and the cat"),
    "one two three": (" four", " one two three"),
}


def check_cell(plan: Plan) -> Again:
    """All that is asked of a working pair, on the model of ``plan``."""
    trained = check_training(plan)
    check_items(plan, trained.model)
    check_foresight(plan, trained.model)
    return trained


def check_training(plan: Plan) -> Again:
    """Training keeps what a pair promises, its loss falls, and it can be killed and resumed."""
    with tempfile.TemporaryDirectory() as scratch:
        live, left = Path(scratch, "live"), Path(scratch, "left")
        live.mkdir()
        trained = check_pair(plan, Killed(live, left), checkpoint=live)
        assert trained.last_loss < trained.own_loss, "the loss has not fallen"
        check_resumed(plan, trained, left)
    return trained


def check_bfloat16(plan: Plan) -> None:
    """The census agrees too where products are taken in bfloat16, as on a GPU."""
    precision = plan.precision.model_copy(update={"compute": "bfloat16"})
    plan = plan.model_copy(update={"precision": precision})
    counts = None
    with suppress(Unpredicted):
        counts = count_plan(plan)
    check_census(take_census(begin(plan).model), plan, counts)


class Killed(Silence):
    """Keeps what a training would leave on the disk if it were killed in one of its steps."""

    def __init__(self, live: Path, left: Path, after: int = KILLED_AFTER) -> None:
        """Copy the folder of checkpoints ``live`` to ``left``, ``after`` so many steps."""
        self._live, self._left, self._waits = live, left, after

    def advance(self, done: int, total: int, **numbers: float) -> None:
        super().advance(done, total, **numbers)
        self._waits -= 1
        if self._waits == 0:
            shutil.copytree(self._live, self._left)


def check_resumed(plan: Plan, trained: Again, left: Path) -> None:
    """What is resumed from the checkpoint in ``left`` ends in the bits that were trained."""
    assert any(left.iterdir()), "no checkpoint"
    resumed, steps = begin(plan, checkpoint=left), Notes()
    losses = [point.loss for point in train(resumed, steps).losses]
    assert steps.steps < plan.budget.steps, "training began anew"
    # a decomposition of the base carries the last bit, where memory lies decides, into the start
    started = initialisation(plan.adapter).startswith((*TAKES_START_OUT, *READS_ROWS))
    expected = pytest.approx(trained.losses, abs=1e-4) if started else trained.losses
    assert losses == expected, f"losses {losses} after resuming, {trained.losses} without"
    weights = dict(resumed.model.named_parameters())
    for name, weight in trained.model.named_parameters():
        if weight.requires_grad and not started:
            assert same(weight, weights[name]), f"{name} has other bits after resuming"


def check_items(plan: Plan, model: Any) -> None:
    """The fast engine gives each item the score that lm-eval's own backend gives it.

    LLM.int8 keeps columns of inputs in 16 or 32 bits where any token of the pass is an outlier, so
    that what is in a pass changes what is rounded. Without outliers its scores are as equal as all
    others; with them they may differ by less than rounding does at all.
    """
    if plan.quantization.type != "int8":
        compare_items(plan, model, 1e-4)
        return
    compare_items(plan, model, 1e-2)
    with without_outliers(model):
        compare_items(plan, model, 1e-4)


def compare_items(plan: Plan, model: Any, close: float) -> None:
    """Log-likelihoods of both engines differ by at most ``close`` nats."""
    from lm_eval.api.instance import Instance

    assert isinstance(plan.model.source, FolderSource)
    tokenizer = load_tokenizer(Path(plan.model.source.path))
    asked = [(context, ending) for context, endings in QUESTIONS.items() for ending in endings]
    items = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(asked)]
    theirs = PlainLM(model, tokenizer).loglikelihood(items, disable_tqdm=True)
    fast = FastLM(model, tokenizer, Likelihood(model, 512, Silence()))
    ours = fast.loglikelihood(items, disable_tqdm=True)
    for (one, greedy), (other, greedy_too) in zip(ours, theirs, strict=True):
        assert abs(one - other) <= close, f"scored {one}, by lm-eval's own backend {other}"
        assert greedy == greedy_too, "another greedy answer"


@contextmanager
def without_outliers(model: Any) -> Iterator[None]:
    """Every column of inputs is rounded, whatever is in it."""
    states = [module.state for module in model.modules() if hasattr(module, "state")]
    before = [state.threshold for state in states]
    assert any(before), "no layer looks for outliers"
    try:
        for state in states:
            state.threshold = 0.0
        yield
    finally:
        for state, threshold in zip(states, before, strict=True):
            state.threshold = threshold


def check_foresight(plan: Plan, model: Any) -> None:
    """No token's logits depend on later tokens or on another row, but where that is said.

    What does not enter has a gradient of exactly zero, however small it would be.
    """
    entered: list[torch.Tensor] = []

    def record(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        entered.append(output.detach().requires_grad_())
        return entered[-1]

    ids = torch.arange(2 * TOKENS).view(2, -1)
    hook = model.get_input_embeddings().register_forward_hook(record)
    try:
        with torch.enable_grad():
            logits = model(input_ids=ids, use_cache=False).logits[:, -TOKENS:]
            logits[0, :SEEN].square().sum().backward()
    finally:
        hook.remove()
    moved = [one.grad for one in entered if one.shape[1] == TOKENS and one.grad is not None]
    assert moved, "no embedding has entered"
    reached = moved[-1].abs().amax(-1) > 0
    assert reached[0, :SEEN].all(), "a token before has no weight"
    beyond = bool(reached[0, SEEN:].any() or reached[1].any())
    assert beyond == needs_of(plan.adapter).sees_all, f"sees later tokens or rows: {beyond}"
