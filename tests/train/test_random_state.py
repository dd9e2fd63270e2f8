"""All generators that training draws from go on as if nothing had happened in between."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import torch

from harness.train.random_state import (
    random_state,
    restore_random_state,
    undisturbed_random_state,
)


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


def draw_and_fail() -> None:
    draw()
    raise ZeroDivisionError


def test_restored_generators_draw_the_same_numbers() -> None:
    state = random_state()
    first = draw()
    assert draw() != first
    restore_random_state(state)
    assert draw() == first


def test_a_state_survives_a_file_that_holds_no_code() -> None:
    file = io.BytesIO()
    torch.save(random_state(), file)
    expected = draw()
    file.seek(0)
    restore_random_state(torch.load(file, weights_only=True))
    assert draw() == expected


def test_what_is_drawn_inside_changes_nothing_outside() -> None:
    state = random_state()
    expected = draw()
    restore_random_state(state)
    with undisturbed_random_state():
        draw()
        torch.manual_seed(7)
    assert draw() == expected


def test_a_failure_inside_puts_them_back_too() -> None:
    state = random_state()
    expected = draw()
    restore_random_state(state)
    with pytest.raises(ZeroDivisionError), undisturbed_random_state():
        draw_and_fail()
    assert draw() == expected
