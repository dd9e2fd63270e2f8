"""README's three files are copied as they stand, and its command is typed on them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from harness.cli.before_run import check_run
from harness.spec.plan import Plan
from tests.cli.terminal import ROOT, shown
from tests.weights.tiny_llama import write_folder

README = (Path(ROOT) / "README.md").read_text(encoding="utf-8")
PART = README.split("## Your model, your data, your task")[1].split("\n## ")[0]


def block(before: str) -> str:
    """The first block of code after these words."""
    found = re.search(r"```\w+\n(.*?)```", PART.split(before, 1)[1], re.DOTALL)
    assert found is not None
    return found[1]


def test_the_files_and_the_command_of_readme_make_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "path" / "to" / "model")
    for name in ("my_task.yaml", "my_variant.toml"):
        Path(name).write_text(block(f"`{name}`, a"))
    example = json.loads(PART.split("```json")[2].split("```")[0])
    Path("my_task.jsonl").write_text(json.dumps(example) + "\n")
    chat = block("`chat.jsonl`, one")
    lines = [chat.replace("otters", f"otters of river {n}").replace("bank", f"bank {n}")
             for n in range(24)]  # fmt: skip
    Path("chat.jsonl").write_text("".join(lines))
    typed = shlex.split(block("Say what you have:").replace("\\\n", " "))
    assert typed[:2] == ["harness", "run"]
    options = [word for word in typed[2:] if word not in {"--name", "my-exp"}]
    more = ["--variant", "my_variant.toml", "--device", "cpu", "--json"]
    found = json.loads(shown("plan", *options, *more))
    plans = [Plan.model_validate_json(json.dumps(plan)) for plan in found]
    assert {plan.variant for plan in plans} == {"lora_bf16", "qlora_nf4", "my_variant"}
    assert "my_task.yaml" in [task.name for task in plans[0].score.tasks]
    check_run(plans, tmp_path / "reports")
