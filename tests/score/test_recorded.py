"""Passes whose shape recurs are recorded once and replayed; the graphs are the GPU's own matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig
from transformers.integrations import sdpa_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harness.score import body, recorded
from harness.score.body import TreeBody
from harness.score.recorded import WORTHWHILE, RecordedPasses
from harness.weights.masks import NeedlessMasks, replaced
from tests.score.conftest import make_model

OFTEN, ONCE = (2, 5), (1, 7)


class Drawn:
    """In place of a graph: runs what it was made of."""

    fails = False

    def __init__(self, run: Callable[[torch.Tensor], torch.Tensor], ids: torch.Tensor) -> None:
        if self.fails:
            raise RuntimeError("the model asks the device something")
        run(ids)
        self.replay = lambda ids: ids + 1


@pytest.fixture
def launched() -> list[tuple[int, ...]]:
    return []


@pytest.fixture
def passes(launched: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> RecordedPasses:
    monkeypatch.setattr(recorded, "_Recorded", Drawn)

    def run(ids: torch.Tensor) -> torch.Tensor:
        launched.append(tuple(ids.shape))
        return ids + 1

    return RecordedPasses(run, "sdpa")


def run_all(passes: RecordedPasses, shapes: list[tuple[int, int]]) -> None:
    for number, shape in enumerate(shapes):
        found = passes.run(torch.full(shape, number))
        assert torch.equal(found, torch.full(shape, number + 1))


def test_the_second_pass_of_a_shape_is_recorded(passes: Any, launched: Any) -> None:
    shapes = [ONCE, *[OFTEN] * WORTHWHILE]
    with passes.expecting(shapes):
        run_all(passes, shapes)
    assert launched == [ONCE, OFTEN, OFTEN], "to make ready, and into the graph"
    assert passes.replayed == WORTHWHILE - 1
    run_all(passes, [OFTEN])
    assert launched[3:] == [OFTEN], "nothing is kept"


def test_few_passes_are_launched(passes: Any, launched: Any) -> None:
    shapes = [OFTEN] * (WORTHWHILE - 1)
    with passes.expecting(shapes):
        run_all(passes, shapes)
    assert len(launched) == len(shapes)


def test_a_model_that_cannot_be_recorded_is_asked_once(
    passes: Any, launched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Drawn, "fails", True)
    shapes = [OFTEN] * WORTHWHILE
    with passes.expecting(shapes):
        run_all(passes, shapes)
    assert launched == shapes
    assert passes.replayed == 0


@pytest.mark.parametrize("window", [None, 4])
def test_masks_that_were_needless_are_left_out(window: int | None) -> None:
    """Where every layer is plainly causal, no mask is made; those of a window are."""
    if window is None:
        model = make_model()
    else:
        config = MistralConfig(
            vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, sliding_window=window,
        )  # fmt: skip
        model = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.arange(3, 13)[None]
    masks = NeedlessMasks(model.config._attn_implementation)
    with masks.noted(), torch.no_grad():
        wanted = model(input_ids=ids).logits
    assert masks._needless == [window is None]
    made: list[Any] = []
    own = sdpa_attention.sdpa_attention_forward

    def watched(*given: Any, **settings: Any) -> Any:
        made.append(given[4])
        return own(*given, **settings)

    with (
        masks.left_out(),
        replaced(ALL_ATTENTION_FUNCTIONS, "sdpa", watched),
        torch.no_grad(),
    ):
        found = model(input_ids=ids).logits
    assert torch.equal(found, wanted)
    assert {mask is None for mask in made} == {window is None}


def test_every_module_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(body, "is_recordable", lambda model: not asked.append(model))
    tree = TreeBody(make_model())
    assert [tree.is_recordable, tree.is_recordable] == [True, True]
    assert len(asked) == 1
