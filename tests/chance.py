"""Chance in tests: the same draws, examples and order, unless --shake asks for others."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

# The seed that torch starts with: draws are the same whether a test imports it or one before did.
SEED = 67280421310721
# A slow machine is no fault of the code, so no example has a time.
ANY_MACHINE = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", ANY_MACHINE, derandomize=True)
settings.register_profile("shaken", ANY_MACHINE, max_examples=1000, print_blob=True)
settings.load_profile("same")
# Otherwise constants of the project's modules are tried, of those that the tests before imported.
providers._get_local_constants = lambda: providers._local_constants
seed_key = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "other random draws, ten times the examples, another order: all drawn from this seed"
    parser.addoption("--shake", type=int, metavar="SEED", help=told)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Before hypothesis reads its own options."""
    shake = config.getoption("--shake")
    config.stash[seed_key] = SEED if shake is None else shake
    if shake is not None:
        settings.load_profile("shaken")
        config.option.hypothesis_seed = config.option.hypothesis_seed or str(shake)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files in another order, and the tests of each; fixtures of a file are still made once."""
    if config.getoption("--shake") is None:
        return
    files: dict[object, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    chance = random.Random(config.stash[seed_key])
    order = list(files.values())
    chance.shuffle(order)
    for tests in order:
        chance.shuffle(tests)
    items[:] = [item for tests in order for item in tests]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    begin_draws(item.config.stash[seed_key])


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Iterator[None]:
    """What several tests share takes no draws from the test that happens to come first."""
    if fixturedef.scope == "function":
        return (yield)
    seed = request.config.stash[seed_key]
    before = draws()
    begin_draws(seed)
    try:
        return (yield)
    finally:
        go_on_drawing(before, seed)


def begin_draws(seed: int) -> None:
    """The same numbers for whatever is drawn without a seed of its own."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.manual_seed(seed)


def draws() -> tuple[Any, Any, Any]:
    """Where the generators stand."""
    torch = sys.modules.get("torch")
    return random.getstate(), np.random.get_state(), torch and torch.default_generator.get_state()


def go_on_drawing(before: tuple[Any, Any, Any], seed: int) -> None:
    """From where they stood; torch begins where nobody had imported it."""
    begin_draws(seed)
    random.setstate(before[0])
    np.random.set_state(before[1])
    if before[2] is not None:
        sys.modules["torch"].default_generator.set_state(before[2])
