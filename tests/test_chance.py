"""Chance: draws and examples are the same whatever other tests have drawn and imported."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

Draws = tuple[float, float, float]
SEEN: set[Draws] = set()


def draw() -> Draws:
    return random.random(), float(np.random.random()), float(torch.rand(()))


@pytest.fixture(scope="module")
def shared() -> Draws:
    """Made before the first test that asks for it, whichever that is."""
    draw()
    return draw()


@pytest.fixture
def own() -> Draws:
    return draw()


@pytest.mark.parametrize("number", range(3))
def test_every_test_draws_the_same_numbers(number: int) -> None:
    SEEN.add(draw())
    for _ in range(number):
        draw()
    assert len(SEEN) == 1


@pytest.mark.parametrize("names", [("own",), ("shared", "own"), ("own", "shared")])
def test_what_tests_share_takes_no_draws_from_them(
    names: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    begun = random.getstate()
    found = {name: request.getfixturevalue(name) for name in names}
    after = draw()
    random.setstate(begun)
    assert (found["own"][0], after[0]) == (random.random(), random.random())


def examples() -> list[tuple[int, str]]:
    found = []

    @settings(max_examples=100)
    @given(st.integers(0, 10**9), st.text(max_size=20))
    def kept(number: int, text: str) -> None:
        found.append((number, text))

    kept()
    return found


def test_examples_do_not_come_from_what_was_imported(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--shake") is not None:
        pytest.skip("other examples are asked for")
    before = examples()
    path = tmp_path / "constants.py"
    path.write_text(f"NUMBERS = {[7919 * place for place in range(3, 90)]}\n")
    spec = importlib.util.spec_from_file_location("constants_of_another", path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["constants_of_another"] = module
    try:
        assert examples() == before
    finally:
        del sys.modules["constants_of_another"]
