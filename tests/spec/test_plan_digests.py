"""What a plan reads is known by its content: each byte counts, and the place does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UserError
from harness.spec.model import Model
from harness.spec.plan_digests import corpus_sha256, data_sha256, is_task_file, model_files
from harness.spec.schema import parse
from harness.spec.suite import CorpusSpec, ScoreSpec, Task

RANDOM = {"kind": "random", "tokenizer": "smollm2_135m_instruct"}


def corpus(path: Path) -> str | None:
    return corpus_sha256(CorpusSpec(source=str(path)))


def scored(*names: str, **fields: str) -> ScoreSpec:
    return ScoreSpec(tasks=tuple(Task(name=name) for name in names), **fields)  # type: ignore[arg-type]


def test_a_corpus_folder_is_known_by_its_files_and_their_names(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        (folder / "inner").mkdir(parents=True)
        (folder / "a.jsonl").write_text("{}\n")
        (folder / "inner" / "b.jsonl").write_text("{}\n")
    assert corpus(one) == corpus(two)
    assert corpus(one) != corpus(one / "a.jsonl")
    (two / "inner" / "b.jsonl").rename(two / "inner" / "c.jsonl")
    assert corpus(one) != corpus(two)


def test_a_stock_task_is_no_file_though_its_name_may_hold_a_slash() -> None:
    assert not is_task_file("arc_easy")
    assert not is_task_file("leaderboard/arc")
    assert is_task_file("tasks/mine.yaml")
    assert is_task_file("mine.yml")


def test_stock_tasks_have_no_digest(tmp_path: Path) -> None:
    assert data_sha256(scored("arc_easy")) is None
    assert data_sha256(scored("arc_easy", data_folder=str(tmp_path))) is not None


def test_a_task_file_counts_with_what_lies_beside_it(tmp_path: Path) -> None:
    task = tmp_path / "mine.yaml"
    task.write_text("task: mine\n")
    alone = data_sha256(scored(str(task)))
    (tmp_path / "notes.txt").write_text("no task reads this")
    assert data_sha256(scored(str(task))) == alone
    (tmp_path / "metric.py").write_text("def score(): ...\n")
    assert data_sha256(scored(str(task))) != alone


def test_task_files_in_folders_of_an_include_path_count(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    task = tmp_path / "deep" / "er" / "mine.yaml"
    task.write_text("task: mine\n")
    before = data_sha256(scored("mine", include_path=str(tmp_path)))
    task.write_text("task: mine\nnum_fewshot: 2\n")
    assert data_sha256(scored("mine", include_path=str(tmp_path))) != before


def test_a_data_folder_that_is_not_there_is_refused_with_what_it_should_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such data folder") as caught:
        data_sha256(scored("arc_easy", data_folder=str(tmp_path / "gone")))
    assert "<org>/<name>" in str(caught.value)


def test_code_counts_only_for_a_model_that_runs_its_own() -> None:
    data = {"name": "m", "description": "d", "license": "MIT", "source": RANDOM}
    plain = parse(Model, data, where="m.toml")
    own = plain.model_copy(update={"trust_remote_code": True})
    assert "*.py" not in model_files(plain)
    assert set(model_files(own)) == {*model_files(plain), "*.py"}
