"""The items of every score have a file of their own."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from harness.errors import DivergedError
from harness.report.pairing import read_table
from harness.score.items import Items, Metric, Place, file_name, write_items

TASKS = ("a_b", "a/b", "a b", "a.b", "a%2Fb", "a%b", "a_b_", "ä_b")


def test_plain_names_stand_in_the_file_name_as_they_are() -> None:
    name = file_name("arc_easy", "acc-norm@5", "after", "training")
    assert name == "arc_easy.acc-norm@5.after.training.parquet"


def test_names_that_differ_in_special_characters_only_have_files_of_their_own(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path, "after", "training")
    for number, task in enumerate(TASKS):
        items = Items([task], [task], np.array([float(number)]), np.array([1.0]))
        score = place.write(Metric(task, "acc", "fraction", "higher"), items, asked={})
        assert score.items is not None
        assert (tmp_path / score.items).parent == tmp_path / "items"
    files = sorted((tmp_path / "items").iterdir())
    assert len(files) == len(TASKS)
    assert {read_table(path)["item"][0] for path in files} == set(TASKS)


@pytest.mark.parametrize(("task", "metric"), [("a.b", "c"), ("a", "b.c")])
def test_the_border_between_task_and_metric_is_told(task: str, metric: str) -> None:
    assert file_name(task, metric, "after", "training").count(".") == 4


def items(numerator: list[float], denominator: list[float], clusters: str = "") -> Items:
    names = [f"i{place}" for place in range(len(numerator))]
    groups = list(clusters) or names
    return Items(names, groups, np.array(numerator), np.array(denominator))


def test_a_value_is_a_ratio_of_sums() -> None:
    found = items([1.0, 3.0], [1.0, 9.0])
    assert found.value("identity") == pytest.approx(0.4), "not the mean of ratios"
    assert found.value("exp") == pytest.approx(math.exp(0.4))


def test_the_error_is_that_of_a_mean_over_groups() -> None:
    random = np.random.default_rng(5)
    values = random.normal(2.0, 0.5, 400)
    alone = items(values.tolist(), [1.0] * 400).standard_error("identity")
    assert alone == pytest.approx(0.5 / math.sqrt(400), rel=0.15)
    pairs = Items(
        [str(place) for place in range(800)],
        [str(place // 2) for place in range(800)],
        np.repeat(values, 2),
        np.ones(800),
    ).standard_error("identity")
    assert pairs == pytest.approx(alone, rel=0.05), "what goes together counts once"


def test_one_group_has_no_error() -> None:
    assert items([1.0, 2.0], [1.0, 1.0], "aa").standard_error("identity") is None


def test_a_group_without_anything_to_score_does_no_harm() -> None:
    found = items([0.0, 1.0, 2.0], [0.0, 1.0, 1.0]).standard_error("identity")
    assert found is not None
    assert math.isfinite(found)


METRIC = Metric("my/task", "acc", "fraction", "higher", headline=True)


def test_a_score_names_its_file_and_the_digest_of_its_bytes(tmp_path: Path) -> None:
    place = Place(tmp_path, "after", "training")
    found = items([1.0, 0.0, 1.0], [1.0] * 3)
    score = place.write(METRIC, found, asked={"shots": 2}, details={"limit": 3})
    assert score.items == "items/my%2Ftask.acc.after.training.parquet"
    data = (tmp_path / score.items).read_bytes()
    assert score.items_sha256 == hashlib.sha256(data).hexdigest()
    assert (score.value, score.n, score.headline) == (pytest.approx(2 / 3), 3, True)
    assert score.details == {"limit": 3, "asked": {"shots": 2}}
    table = pq.read_table(tmp_path / score.items).to_pydict()
    assert table["item"] == ["i0", "i1", "i2"]
    assert table["numerator"] == [1.0, 0.0, 1.0]


def test_equal_items_have_equal_bytes(tmp_path: Path) -> None:
    found = items([1.0, 0.5], [1.0, 1.0])
    digests = {write_items(tmp_path / name, found) for name in ("a.parquet", "b.parquet")}
    assert len(digests) == 1


def test_an_error_that_the_task_brings_is_kept(tmp_path: Path) -> None:
    place = Place(tmp_path, "before", "merged")
    score = place.write(METRIC, items([1.0, 0.0], [1.0, 1.0]), asked={}, standard_error=0.25)
    assert score.standard_error == 0.25
    assert (score.stage, score.precision) == ("before", "merged")


def test_texts_go_along_with_the_numbers(tmp_path: Path) -> None:
    found = Items(["a"], ["a"], np.ones(1), np.ones(1), {"prompt": ["Why?"], "ids": [[1, 2]]})
    write_items(tmp_path / "x.parquet", found)
    table = pq.read_table(tmp_path / "x.parquet").to_pydict()
    assert table["prompt"] == ["Why?"]
    assert table["ids"] == [[1, 2]]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_no_number_is_no_score(tmp_path: Path, value: float) -> None:
    with pytest.raises(DivergedError, match="acc of my/task is"):
        Place(tmp_path, "after", "training").write(METRIC, items([value], [1.0]), asked={})
    assert not (tmp_path / "items").exists(), "nothing is written of it"
