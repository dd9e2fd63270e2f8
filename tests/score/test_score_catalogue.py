"""Tasks by name: what is missing is said with what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from harness.errors import InvalidFile, UnknownName, UserError
from harness.score.catalogue import load_task, names_of
from harness.spec.schema import parse
from harness.spec.suite import ScoreSpec, Task


def load(task: Task, data: Path | None, folder: Path) -> dict[str, Any]:
    with load_task(task, data, folder) as loaded:
        return loaded.tasks


def test_unknown_task_offers_close_matches(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="arc_easy"):
        load(Task(name="arc_eazy"), None, tmp_path)


def test_missing_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(Task(name="piqa"), tmp_path, tmp_path)
    text = str(caught.value)
    assert "piqa" in text
    assert "--data-folder" in text


def test_missing_data_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such data folder"):
        load(Task(name="arc_easy"), tmp_path / "none", tmp_path)


def test_limit_of_zero_is_refused() -> None:
    with pytest.raises(InvalidFile, match="limit"):
        parse(ScoreSpec, {"tasks": [{"name": "arc_easy", "limit": 0}]}, where="suite")


def test_the_same_task_twice_is_refused() -> None:
    with pytest.raises(UserError, match="twice"):
        names_of([Task(name="arc_easy"), Task(name="arc_easy", num_fewshot=5)])


@pytest.mark.parametrize("name", ["boolq", "winogrande", "copa", "hellaswag"])
def test_few_shot_from_scored_rows_is_refused(name: str, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "lm_eval"
    assert load(Task(name=name), folder, tmp_path)
    with pytest.raises(UserError, match=r"rows being scored|missing"):
        load(Task(name=name, num_fewshot=2), folder, tmp_path)


def test_few_shot_of_a_task_fixed_at_none_is_refused(shared_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fixed at none"):
        load(Task(name="truthfulqa_mc2", num_fewshot=2), shared_data / "lm_eval", tmp_path)


def test_data_comes_from_the_folder_by_stock_name(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "lm_eval"
    (task,) = load(Task(name="arc_challenge", num_fewshot=3), folder, tmp_path).values()
    assert task.config.dataset_path == str((folder / "allenai/ai2_arc").resolve())
    assert len(task.eval_docs) == 1172
    assert task.VERSION == 1.0


ROW = {
    "id": "1",
    "question": "a",
    "choices": {"text": ["x"], "label": ["A"]},
    "answerKey": "A",
}


def write_arc(folder: Path, split: str, rows: int) -> None:
    """A copy of ARC-Easy that has one split."""
    target = folder / "allenai" / "ai2_arc" / "ARC-Easy"
    target.mkdir(parents=True)
    data = datasets.Dataset.from_list([ROW]).select(range(rows))
    data.to_parquet(target / f"{split}-0.parquet")
    (target.parent / "README.md").write_text(
        f"---\nconfigs:\n- config_name: ARC-Easy\n  data_files:\n  - split: {split}\n"
        f'    path: "ARC-Easy/{split}-*.parquet"\n---\n'
    )


def test_a_missing_scored_split_is_not_replaced(tmp_path: Path) -> None:
    write_arc(tmp_path, "validation", 1)
    with pytest.raises(UserError, match="cannot be read"):
        load(Task(name="arc_easy"), tmp_path, tmp_path)


def test_an_empty_split_is_said_to_be_empty(tmp_path: Path) -> None:
    write_arc(tmp_path, "test", 0)
    with pytest.raises(UserError, match="empty"):
        load(Task(name="arc_easy"), tmp_path, tmp_path)
