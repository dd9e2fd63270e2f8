"""The items of every score have a file of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.report.pairing import read_table
from harness.score.items import Items, Metric, Place, file_name

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
