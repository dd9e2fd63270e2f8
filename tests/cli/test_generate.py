"""A file of prompts is answered in its order, or refused before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.terminal import refused, shown
from tests.forms.tiny_results import Tiny, make_plan, make_result


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A finished run of LoRA on a random llama."""
    folder = tmp_path_factory.mktemp("tiny")
    return make_result(folder, make_plan(folder))


def test_prompts_are_answered_in_their_order(tiny: Tiny, tmp_path: Path) -> None:
    run, target = str(tiny.run.folder.path), tmp_path / "answers.jsonl"
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "one"}\n\n{"prompt": "two\\nlines"}\n')
    options = ["--prompts", str(prompts), "--out", str(target), "--max-new-tokens", "4"]
    assert "2 answers" in shown("generate", run, *options, "--device", "cpu")
    found = [json.loads(line) for line in target.read_text().splitlines()]
    assert [item["prompt"] for item in found] == ["one", "two\nlines"]
    assert all(isinstance(item["answer"], str) for item in found)
    assert "the target already exists" in refused("generate", run, *options)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.txt", " \n", "no prompts"),
        ("p.jsonl", '{"prompt": 3}\n', "p.jsonl, line 1"),
        ("p.jsonl", "not json\n", "p.jsonl, line 1"),
        ("none.txt", None, "cannot read the prompts"),
    ],
)
def test_prompts_that_are_none(
    name: str, text: str | None, said: str, tiny: Tiny, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    options = ["--prompts", str(tmp_path / name), "--out", str(tmp_path / "out.jsonl")]
    assert said in refused("generate", str(tiny.run.folder.path), *options)
    assert not (tmp_path / "out.jsonl").exists()
