"""Two devices that divide every batch learn what one does, with whole weights or a part of each."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.records.events import Silence
from harness.train.path import train
from tests.parallel.cases import CASES, RESUMED
from tests.parallel.pair import run_pair
from tests.train.tiny import ROUNDING


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What two processes found, each."""
    folder = tmp_path_factory.mktemp("pair")
    run_pair("tests.parallel.train_pair", str(folder))
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", CASES)
def test_twenty_losses_are_those_of_one_device(pair: list[Any], name: str) -> None:
    alone = train(CASES[name].job(), Silence())
    together = pair[0][name]
    losses = [point.loss for point in alone.losses]
    assert together["losses"][0] == pytest.approx(losses[0], abs=ROUNDING)
    assert together["losses"] == pytest.approx(losses, abs=1e-4)
    assert together["tokens"]["assistant"] == alone.tokens.assistant
    assert together["tokens"]["non_padding"] == alone.tokens.non_padding


@pytest.mark.parametrize("name", CASES)
def test_both_devices_end_with_the_same_weights(pair: list[Any], name: str) -> None:
    assert pair[0][name]["weights"] == pair[1][name]["weights"]
    assert pair[0][name]["losses"] == pair[1][name]["losses"]


def test_spread_weights_go_on_from_a_checkpoint_bit_for_bit(pair: list[Any]) -> None:
    for found in pair:
        assert found[f"{RESUMED}, resumed"]["losses"] == found[RESUMED]["losses"]
