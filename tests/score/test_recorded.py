"""Passes whose shape recurs are recorded once and replayed; the graphs are the GPU's own matter."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from harness.score import body, recorded
from harness.score.body import TreeBody
from harness.score.recorded import WORTHWHILE, RecordedPasses
from harness.weights.masks import NeedlessMasks, attention_of, replaced
from tests.architectures import tiny_causal
from tests.score.conftest import make_model

OFTEN, ONCE = (2, 5), (1, 7)
SHORTER = (3, 4)


class Drawn:
    """In place of a graph: runs what it was made of."""

    fails = False

    def __init__(self, launch: Callable[[torch.Tensor], torch.Tensor], ids: torch.Tensor) -> None:
        if self.fails:
            raise RuntimeError("the model asks the device something")
        launch(ids)
        self.replay = lambda ids: ids + 1
        alive.add(self)


alive = weakref.WeakSet[Drawn]()


class Passes(RecordedPasses):
    """With what launches them."""

    def __init__(self, attention: str, launch: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__(attention)
        self.launch = launch


@pytest.fixture
def launched() -> list[tuple[int, ...]]:
    return []


@pytest.fixture
def passes(launched: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> Passes:
    monkeypatch.setattr(recorded, "_Recorded", Drawn)

    def launch(ids: torch.Tensor) -> torch.Tensor:
        launched.append(tuple(ids.shape))
        return ids + 1

    return Passes("sdpa", launch)


def run_all(passes: Passes, shapes: list[tuple[int, int]]) -> None:
    for number, shape in enumerate(shapes):
        found = passes.run(passes.launch, torch.full(shape, number))
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


@pytest.mark.parametrize(
    ("name", "needless"),
    [("qwen2_window", [True, False]), ("gemma2", [False, False]), ("biogpt", [True])],
)
def test_masks_that_were_needless_are_left_out_of_a_recording(
    name: str, needless: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is played: while it records, nobody can ask it. Windows are 16 tokens."""
    model = tiny_causal(name)
    implementation = attention_of(model)
    masks = NeedlessMasks(implementation)
    own = ALL_MASK_ATTENTION_FUNCTIONS[implementation]
    made: list[bool] = []

    def watched(**settings: Any) -> Any:
        mask = own(**settings)
        made.append(mask is not None)
        return mask

    def logits(ids: torch.Tensor, how: Any) -> Any:
        made.clear()
        with replaced(ALL_MASK_ATTENTION_FUNCTIONS, implementation, watched), how:
            return model(input_ids=ids).logits

    long, short = torch.arange(60).view(2, 30), torch.arange(36).view(3, 12) % 9
    with torch.no_grad():
        wanted = [logits(short, nullcontext()), logits(long, masks.noted())]
        assert made == [not one for one in needless]
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        for ids, want in zip((short, long), wanted, strict=True):
            assert torch.allclose(logits(ids, masks.left_out()), want, atol=1e-5)
            assert sum(made) <= needless.count(False)
        logits(long, nullcontext())
        assert sum(made) > needless.count(False) or name != "biogpt", "it asks what is its padding"


def test_memory_of_one_graph_is_held_at_a_time(passes: Any, launched: Any) -> None:
    """Rows come by length: a shape whose passes are over needs no graph any more."""
    shapes = [*[OFTEN] * WORTHWHILE, *[SHORTER] * WORTHWHILE]
    with passes.expecting(shapes):
        run_all(passes, shapes)
        assert len(alive) == 1
        run_all(passes, [OFTEN])
    assert launched == [OFTEN, OFTEN, SHORTER, SHORTER, OFTEN]
    assert not alive


def test_no_graph_is_kept_where_there_is_no_room_for_the_next(
    passes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with passes.expecting([*[OFTEN] * WORTHWHILE, *[SHORTER] * WORTHWHILE]):
        run_all(passes, [OFTEN] * WORTHWHILE)
        monkeypatch.setattr(Drawn, "fails", True)
        run_all(passes, [SHORTER] * 2)
        assert not alive


def test_a_model_goes_with_what_scored_it() -> None:
    """One that only a collection of garbage frees would lie beside the next one on a GPU."""
    model = make_model()
    gone = weakref.ref(model)
    gc.disable()
    try:
        TreeBody(model).run_rows([np.arange(3)])
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_every_module_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(body, "is_recordable", lambda model: not asked.append(model))
    tree = TreeBody(make_model())
    assert [tree.is_recordable, tree.is_recordable] == [True, True]
    assert len(asked) == 1
