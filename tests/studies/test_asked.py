"""What a study asks is told apart from what another asks, wherever machines keep its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.studies.open import StudyRequest, open_study
from tests.planned import CPU

COMMIT = "0" * 40


def key(folder: Path, *settings: str, tasks: tuple[str, ...] = ()) -> str:
    """Names the study where machines share what is decided about it."""
    request = StudyRequest(study="quantization", settings=settings, tasks=tasks, called="mine")
    return open_study(request, CPU, folder).key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("model=meta-llama/Llama-3.2-1B", "model=unsloth/Llama-3.2-1B"),
        (f"model=meta-llama/Llama-3.2-1B@{COMMIT}", f"model=unsloth/Llama-3.2-1B@{COMMIT}"),
        (f"corpus.source=hub:a/trees.v2@{COMMIT}", f"corpus.source=hub:b/trees.v2@{COMMIT}"),
        ("study.settings.model=meta-llama/Llama-3.2", "study.settings.model=unsloth/Llama-3.2"),
        ("model=/mnt/phi2", "model=/mnt/phi3"),
        ("study.variants=['a/mine/adapter_config.json']", "study.variants=['adapter_config.json']"),
    ],
)
def test_other_models_and_data_make_another_study(tmp_path: Path, one: str, other: str) -> None:
    assert key(tmp_path, one) != key(tmp_path, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("score.data_folder=data/lm_eval", "score.data_folder=/mnt/lm_eval"),
        ("suite.score.data_folder=data/lm_eval", "suite.score.data_folder=lm_eval/"),
        ("score.include_path=own/tasks", "score.include_path=/mnt/tasks"),
        ("corpus.source=data/trees", "corpus.source=/mnt/trees"),
        ("corpus.source=trees.jsonl", "corpus.source=~/trees.jsonl"),
        ("model=big/models/phi2", "model=/mnt/phi2"),
        ("model=./phi2", "model=~/phi2"),
        ("study.settings={'corpus.source'='a/t'}", "study.settings={'corpus.source'='/b/t'}"),
        ("study.suite=a/own.toml", "study.suite=/b/own.toml"),
        ("study.variants=['a/own.toml']", "study.variants=['/b/own.toml']"),
        ("study.variants=['./mine']", "study.variants=['/b/mine/adapter_config.json']"),
        ("score.tasks=[{name='a/own.yaml'}]", "score.tasks=[{name='/b/own.yaml'}]"),
    ],
)
def test_the_folders_of_a_machine_make_no_other_study(tmp_path: Path, one: str, other: str) -> None:
    assert key(tmp_path, one) == key(tmp_path, other)


def test_a_model_folder_is_no_id_of_the_hub_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "phi2").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert key(tmp_path, "model=models/phi2") == key(tmp_path, "model=/mnt/phi2")
    assert key(tmp_path, "model=models/phi3") != key(tmp_path, "model=/mnt/phi3")


def test_a_task_of_one_s_own_may_lie_anywhere(tmp_path: Path) -> None:
    assert key(tmp_path, tasks=("a/own.yaml",)) == key(tmp_path, tasks=("/b/own.yaml",))
    assert key(tmp_path, tasks=("leaderboard/x",)) != key(tmp_path, tasks=("helm/x",))
