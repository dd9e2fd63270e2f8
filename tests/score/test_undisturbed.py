"""Undisturbed: scoring leaves a model and the random numbers as it found them."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.score.undisturbed import undisturbed


@pytest.fixture
def model() -> Any:
    """Two layers, one of which is in evaluation mode although the whole is in training."""
    made: Any = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    made.config = SimpleNamespace(use_cache=False)
    made.device = torch.device("cpu")
    made.train()
    made[1].eval()
    return made


def modes(model: Any) -> list[bool]:
    return [module.training for module in model.modules()]


def draws() -> list[float]:
    return [random.random(), float(np.random.rand()), torch.rand(1).item()]


def seed() -> None:
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)


def test_a_model_is_in_evaluation_mode_inside_and_as_it_was_afterwards(model: Any) -> None:
    before = modes(model)
    with undisturbed(model):
        assert not any(modes(model))
        model.config.use_cache = True
    assert modes(model) == before == [True, True, False]
    assert model.config.use_cache is False


def test_random_numbers_go_on_as_if_nothing_had_been_drawn(model: Any) -> None:
    seed()
    wanted = draws()
    seed()
    with undisturbed(model):
        draws()
    assert draws() == wanted


def test_a_failure_inside_puts_all_back_too(model: Any) -> None:
    before = modes(model)
    seed()
    wanted = draws()
    seed()

    def fail() -> None:
        with undisturbed(model):
            draws()
            raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        fail()
    assert modes(model) == before
    assert draws() == wanted


def test_a_model_without_a_cache_setting_gets_none(model: Any) -> None:
    del model.config.use_cache
    with undisturbed(model):
        pass
    assert not hasattr(model.config, "use_cache")
