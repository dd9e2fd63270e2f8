"""Two devices that share the layers of a base compute what one does with whole layers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from harness.quantize.scheme import find_scheme
from harness.records.events import Silence
from harness.records.record import Census
from harness.score.likelihood import Likelihood
from harness.weights.by_layer import Filling, as_read, build_by_layer
from harness.weights.census import take_census
from tests.parallel.pair import one_thread, run_pair
from tests.parallel.queries import as_data
from tests.parallel.sharded_cases import (
    BATCH_TOKENS,
    VARIANTS,
    base,
    full,
    logits,
    queries,
    slopes,
    target,
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What two processes found, each."""
    folder = tmp_path_factory.mktemp("pair")
    run_pair("tests.parallel.sharded_pair", str(folder))
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(autouse=True, scope="module")
def as_many_threads_as_each_of_the_pair() -> Iterator[None]:
    """Products that are divided over threads may be rounded otherwise."""
    with one_thread():
        yield


def whole(variant: str) -> Any:
    """The base on one device."""
    model, wanted = base(), target(variant)
    build_by_layer(model, find_scheme(wanted.quantization), wanted, Filling(as_read))
    return model


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_gradients_are_those_of_one_device(pair: list[Any], variant: str) -> None:
    model = whole(variant)
    for found in pair:
        ours = found[variant]
        assert ours["layers"]
        torch.testing.assert_close(torch.tensor(ours["logits"]), logits(model).clone())
        torch.testing.assert_close(torch.tensor(ours["slopes"]), slopes(model))
        assert ours["again"] == ours["logits"], "after a backward pass"


@pytest.mark.parametrize("variant", [*VARIANTS, "full"])
def test_scores_are_divided_and_are_those_of_one_device(pair: list[Any], variant: str) -> None:
    likelihood = Likelihood(
        full() if variant == "full" else whole(variant), BATCH_TOKENS, Silence()
    )
    expected = as_data(likelihood.answer(queries()))
    for found in pair:
        ours = found[variant]["scores"]
        assert ours["answers"] == expected
        assert ours["computed"] < 0.75 * likelihood.computed_tokens


@pytest.mark.parametrize("variant", VARIANTS)
def test_first_layers_are_compared_before_anything_is_made_of_them(
    pair: list[Any], variant: str
) -> None:
    assert all(found[variant]["difference"] <= 1e-5 for found in pair)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_device_holds_half_of_layers_and_embeddings_between_passes(
    pair: list[Any], variant: str
) -> None:
    model = whole(variant)
    layers = model.model.layers
    shared = (layers, model.get_input_embeddings())
    total = sum(weight.nbytes for one in shared for weight in one.parameters())
    for found in pair:
        assert found[variant]["held"] <= total / 2 + 64 * len(layers)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_census_counts_the_whole_model(pair: list[Any], variant: str) -> None:
    expected = take_census(whole(variant))
    for found in pair:
        census = Census.model_validate_json(found[variant]["census"])
        assert census.total == expected.total
        assert census.weight_bytes == expected.weight_bytes
        labels = {row.quantization for row in census.rows}
        assert labels == {row.quantization for row in expected.rows}


def test_layers_that_lose_their_numbers_are_noticed_before_the_first_step(pair: list[Any]) -> None:
    for found in pair:
        assert "sharded layers compute something else than whole ones" in found["broken"]
        assert "doctor --gpus" in found["broken"]


def test_a_model_that_is_trained_whole_has_a_part_of_every_weight_on_each_device(
    pair: list[Any],
) -> None:
    model = full()
    total = sum(weight.nbytes for weight in model.parameters())
    rows = max(weight[0].nbytes for weight in model.parameters())
    for found in pair:
        ours = found["full"]
        assert ours["difference"] <= 1e-5
        torch.testing.assert_close(torch.tensor(ours["logits"]), logits(model).clone())
        assert abs(ours["held"] - total / 2) <= rows, "an uneven number of rows"
        census = Census.model_validate_json(ours["census"])
        assert census.total == take_census(model).total


def test_a_checkpoint_of_all_weights_is_held_by_the_device_that_writes_it(pair: list[Any]) -> None:
    """On two GPUs the second one's peak was that of a whole model and both its moments."""
    total = sum(weight.nbytes for weight in full().parameters())
    held = [found["full"]["checkpoint"] for found in pair]
    assert held == [pytest.approx(total, rel=1e-3), 0]


def test_gradients_that_are_not_added_up_are_noticed_before_the_first_step(
    pair: list[Any],
) -> None:
    for found in pair:
        assert "sharded layers compute something else than whole ones" in found["broken gradients"]


def test_a_device_that_is_lost_in_a_sharded_layer_is_said_to_be(pair: list[Any]) -> None:
    assert "another device's process has ended" in pair[0]["abandoned"]
    assert "in a sharded layer" in pair[0]["abandoned"]
