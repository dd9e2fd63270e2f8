"""Two devices that divide the passes of a score give the answers of one, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from harness.records.events import Silence
from harness.score.likelihood import Likelihood
from tests.parallel.pair import run_pair
from tests.parallel.queries import BATCH_TOKENS, as_data, queries
from tests.train.tiny import tiny_model


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What two processes found, each."""
    folder = tmp_path_factory.mktemp("pair")
    run_pair("tests.parallel.score_pair", str(folder))
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_answers_are_those_of_one_device(pair: list[Any]) -> None:
    alone = Likelihood(tiny_model().eval(), BATCH_TOKENS, Silence())
    for kind in ("shared", "apart"):
        assert pair[0][kind] == as_data(alone.answer(queries(kind)))


def test_every_device_gets_them_where_all_ask(pair: list[Any]) -> None:
    assert pair[0]["together"] == pair[1]["together"] == pair[0]["shared"]


def test_each_device_computes_about_half(pair: list[Any]) -> None:
    alone = Likelihood(tiny_model().eval(), BATCH_TOKENS, Silence())
    alone.answer(queries("shared"))
    for found in pair:
        assert found["computed"] < 0.7 * alone.computed_tokens
