"""A model that is not whole, or not the planned one, ends a run as the user's mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from harness.records.store import RunStore, StoredRun
from tests.cli.terminal import refused
from tests.runs.forked import supervise
from tests.runs.small_run import Heard, Small


@pytest.fixture
def damaged(small: Small, tmp_path: Path) -> Small:
    """A copy of the small run's files whose model a test may damage."""
    for path in small.folder.iterdir():
        if path.is_dir() and path.name == "weights":
            shutil.copytree(path, tmp_path / path.name)
        elif path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    for path in tmp_path.glob("*.toml"):
        path.write_text(path.read_text().replace(str(small.folder), str(tmp_path)))
    return Small(tmp_path / small.suite.name, tmp_path)


def give_pad_token(folder: Path) -> None:
    """A tokenizer whose padding token has no row in the embedding."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    tokenizer.save_pretrained(folder)


def test_a_missing_matrix_leaves_no_number(damaged: Small, tmp_path: Path) -> None:
    path = tmp_path / "weights" / "model.safetensors"
    weights = load_file(path)
    del weights["model.layers.0.self_attn.o_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    arguments = ("run", "-v", "base", "-v", "lora_bf16", "-s", str(damaged.suite))
    reports = tmp_path / "reports"
    message = refused(*arguments, "--device", "cpu", "--reports", str(reports))
    assert "missing from the files: model.layers.0.self_attn.o_proj.weight" in message
    runs = RunStore(reports / "runs").scan()
    assert all(not run.record.scores for run in runs if isinstance(run, StoredRun))


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_pad_token_without_a_row_is_refused_with_the_number_to_add(
    damaged: Small, tmp_path: Path, command: str
) -> None:
    give_pad_token(tmp_path / "weights")
    options = ["--reports", str(tmp_path / "reports")]
    message = refused(
        command, "-v", "lora_bf16", "-s", str(damaged.suite), "--device", "cpu", *options
    )
    assert "padding has id 260" in message
    assert "set added_tokens = 1" in message


def test_with_the_row_added_it_is_trained(damaged: Small, tmp_path: Path) -> None:
    give_pad_token(tmp_path / "weights")
    model = tmp_path / "small.toml"
    model.write_text(f"added_tokens = 1\n{model.read_text()}")
    record = supervise(damaged.plan("budget.steps=2"), RunStore(tmp_path / "runs"), Heard())
    assert record.status == "ok", record.problem


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_model_file_of_another_shape_is_refused_at_once(
    damaged: Small, tmp_path: Path, command: str
) -> None:
    path = tmp_path / "weights" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 3}))
    options = ["--reports", str(tmp_path / "reports")]
    message = refused(command, "-v", "base", "-s", str(damaged.suite), "--device", "cpu", *options)
    assert "num_hidden_layers = 2 there, 3 in config.json" in message
    assert not (tmp_path / "reports" / "runs").exists()
