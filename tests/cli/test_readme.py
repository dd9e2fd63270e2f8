"""README's three files are copied as they stand, and its command is typed on them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from harness.cli.checks.data import check_run
from harness.spec.plan import Plan
from tests.cli.terminal import ROOT, in_process, shown
from tests.weights.tiny_llama import write_folder

README = (Path(ROOT) / "README.md").read_text(encoding="utf-8")
PART = README.split("## Your model, your data, your task")[1].split("\n## ")[0]


def block(before: str) -> str:
    """The first block of code after these words."""
    found = re.search(r"```\w+\n(.*?)```", PART.split(before, 1)[1], re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options of README's command, in a folder with its files and a model."""
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "path" / "to" / "model")
    for name in ("my_task.yaml", "my_variant.toml"):
        Path(name).write_text(block(f"`{name}`, a"))
    example = json.loads(PART.split("```json")[2].split("```")[0])
    Path("my_task.jsonl").write_text(json.dumps(example) + "\n")
    chat = block("`chat.jsonl`, one")
    lines = [chat.replace("otters", f"otters of river {n}").replace("bank", f"bank {n}")
             for n in range(60)]  # fmt: skip
    Path("chat.jsonl").write_text("".join(lines))
    words = shlex.split(block("Say what you have:").replace("\\\n", " "))
    assert words[:2] == ["harness", "run"]
    return words[2:]


def test_the_files_and_the_command_of_readme_make_runs(typed: list[str], tmp_path: Path) -> None:
    options = [word for word in typed if word not in {"--name", "my-exp"}]
    more = ["--variant", "my_variant.toml", "--device", "cpu", "--json"]
    found = json.loads(shown("plan", *options, *more))
    plans = [Plan.model_validate_json(json.dumps(plan)) for plan in found]
    assert {plan.variant for plan in plans} == {"lora_bf16", "qlora_nf4", "my_variant"}
    assert "my_task.yaml" in [task.name for task in plans[0].score.tasks]
    check_run(plans, tmp_path / "reports")


@pytest.mark.slow
def test_the_command_of_readme_ends_with_a_decision(typed: list[str], tmp_path: Path) -> None:
    """With one seed and two steps, which change how long it takes and not where it leads."""
    options = ["0" if word == "0..2" else word for word in typed]
    done = in_process("run", *options, "--set", "budget.steps=2", "--device", "cpu")
    assert done.code == 0, done.stderr
    assert "Recommended: " in done.stdout
    folder = tmp_path / "reports" / "my-exp"
    assert f"report: {folder.relative_to(tmp_path) / 'report.md'}" in done.stdout
    page, items = ((folder / name).read_text() for name in ("report.html", "items.html"))
    assert "Recommended: " in page
    assert 'href="items.html"' in page
    assert "Do otters swim?" in items
    assert "Do otters swim?" not in page
