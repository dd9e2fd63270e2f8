"""Two devices that divide the passes of a score give the answers of one, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.records.events import Silence
from harness.score.divided import make_likelihood
from harness.score.evaluation import language_model
from tests.parallel.pair import one_thread, run_pair
from tests.parallel.queries import as_data, prompts, queries, subject_of
from tests.weights.tiny_llama import write_folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and its tokenizer."""
    return write_folder(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def pair(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What two processes found, each."""
    folder = tmp_path_factory.mktemp("pair")
    run_pair("tests.parallel.score_pair", str(folder), str(weights))
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone(weights: Path) -> dict[str, Any]:
    """What one process finds, with as many threads."""
    with one_thread():
        subject = subject_of(weights)
        likelihood = make_likelihood(subject, Silence())
        found: dict[str, Any] = {"shared": as_data(likelihood.answer(queries("shared")))}
        found["computed"] = likelihood.computed_tokens
        found["apart"] = as_data(likelihood.answer(queries("apart")))
        found["answers"] = language_model(subject, likelihood).generate_until(prompts(), True)
    return found


def test_answers_are_those_of_one_device(pair: list[Any], alone: dict[str, Any]) -> None:
    for kind in ("shared", "apart"):
        assert pair[0][kind] == alone[kind]


def test_generated_texts_are_those_of_one_device(pair: list[Any], alone: dict[str, Any]) -> None:
    assert len(set(alone["answers"])) > 5, "they differ"
    assert pair[0]["answers"] == alone["answers"]


def test_every_device_gets_them_where_all_ask(pair: list[Any]) -> None:
    assert pair[0]["together"] == pair[1]["together"] == pair[0]["shared"]


def test_each_device_computes_about_half(pair: list[Any], alone: dict[str, Any]) -> None:
    for found in pair:
        assert found["computed"] < 0.7 * alone["computed"]
