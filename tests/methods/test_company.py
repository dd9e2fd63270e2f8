"""An adapter that looks at all tokens of a pass is scored alone, and the reader is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.corpus.conversation import Message
from harness.corpus.render import Renderer
from harness.records.events import Silence
from harness.score.generations import Prompt, generate
from harness.score.likelihood import Likelihood
from harness.score.probe import find_ways, sees_all
from harness.spec.model import FolderSource
from harness.weights.load import load_tokenizer
from tests.methods.bench import Bench
from tests.methods.promises import check_foresight, check_items
from tests.methods.trial import begin


@pytest.fixture(scope="module")
def lily(bench: Bench) -> Any:
    """A Lily that has learned so much that its company shows."""
    model = begin(bench.plan("lily")).model.eval()
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lily" in name:
            weight.data.normal_(0, 0.5)
    return model


def logits(model: Any, *rows: list[int]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor(rows), use_cache=False).logits
    return found


def test_its_logits_depend_on_later_tokens_and_on_other_rows(lily: Any, bench: Bench) -> None:
    short, long = [5, 6, 7, 8], [5, 6, 7, 8, 30, 31]
    assert (logits(lily, short)[0] - logits(lily, long)[0, :4]).abs().max() > 1e-3
    assert (logits(lily, short)[0] - logits(lily, short, [9, 20, 30, 40])[0]).abs().max() > 1e-3
    check_foresight(bench.plan("lily"), lily)


def test_each_text_is_scored_alone_as_lm_eval_scores_it(lily: Any, bench: Bench) -> None:
    assert sees_all(lily) == "LILY"
    assert [body.way for body in find_ways(lily).bodies] == ["one sequence at a time"]
    check_items(bench.plan("lily"), lily)


def test_each_prompt_is_answered_alone(lily: Any, bench: Bench) -> None:
    plan = bench.plan("lily")
    assert isinstance(plan.model.source, FolderSource)
    tokenizer = load_tokenizer(Path(plan.model.source.path))
    renderer = Renderer(tokenizer, plan.model.chat_template)
    told = ("the cat sat", "one two three four five", "a dog")
    prompts = [Prompt(None, (Message("user", text, "m"),), "") for text in told]  # type: ignore[arg-type]
    likelihood = Likelihood(lily, 512, Silence())
    together = generate(lily, renderer, prompts, 8, likelihood)
    assert together == [generate(lily, renderer, [one], 8, likelihood)[0] for one in prompts]


def test_conversations_are_not_packed_and_recorded_steps_are_not_used(bench: Bench) -> None:
    plan = bench.plan("lily", "llama", "training.packing=true", "training.speed=recorded")
    assert not plan.training.packing
    told = {item.key: item.reason for item in plan.substitutions}
    assert told["training.packing"].startswith("LILY looks at every token of a row")


@pytest.mark.parametrize("method", ["ia3", "prefix_tuning"])
def test_others_are_scored_together(bench: Bench, method: str) -> None:
    model = begin(bench.plan(method)).model.eval()
    assert sees_all(model) is None
    assert len(find_ways(model).bodies) > 1
