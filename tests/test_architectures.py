"""Tiny models of many architectures: they are built, and their peculiarities change results."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from harness.spec.registry import load_model
from harness.weights.shape import meta_model
from tests.architectures import ARCHITECTURES, model_toml, save_architecture, tiny_causal


def test_there_are_enough_to_speak_of_every_architecture() -> None:
    assert len(ARCHITECTURES) >= 40


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_its_shape_can_be_written_in_a_model_file(name: str, tmp_path: Path) -> None:
    model = load_model(str(model_toml(name, tmp_path / f"{name}.toml", tmp_path)))
    built: Any = meta_model(model)
    real: Any = tiny_causal(name)
    assert type(built) is type(real)
    shapes = {key: value.shape for key, value in real.named_parameters()}
    assert {key: value.shape for key, value in built.named_parameters()} == shapes


@pytest.mark.parametrize("name", ["bloom", "gemma2", "opt", "falcon_h1"])
def test_a_saved_one_gives_the_same_loss(name: str, tmp_path: Path) -> None:
    real: Any = tiny_causal(name)
    saved = AutoModelForCausalLM.from_pretrained(save_architecture(name, tmp_path))
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(saved.eval()(input_ids=ids).logits, real(input_ids=ids).logits)


def test_a_window_is_written_as_a_window(tmp_path: Path) -> None:
    path = model_toml("qwen2_window", tmp_path / "q.toml", tmp_path)
    assert tomllib.loads(path.read_text())["config"]["sliding_window"] == 16


def test_the_documentation_has_a_row_for_every_architecture() -> None:
    page = Path(__file__).parents[1] / "docs" / "architectures.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("| architecture |"))
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in lines[start:]
        if line.startswith("|")
    ]
    assert {row[0] for row in rows} == set(ARCHITECTURES)
    for row in rows:
        assert len(row) == len(head)
        assert all(cell.startswith(("yes", "no: ", "plain instead: ")) for cell in row[1:])
