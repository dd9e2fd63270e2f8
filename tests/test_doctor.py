"""Doctor says what is missing and how to get it, without loading what it looks for."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pydantic
import pytest

import harness
from harness import doctor
from harness.cache import ENVIRONMENT_VARIABLE
from harness.doctor import EXTRAS, Check, examine
from harness.quantize.scheme import schemes

ROOT = Path(harness.__file__).parents[1]


def findings() -> dict[str, Check]:
    return {check.name: check for check in examine()}


def test_everything_a_run_needs_is_looked_at() -> None:
    found = findings()
    assert {"Python", "torch", "peft", "pip", "memory", "cache folder", "GPU"} <= set(found)
    assert "model smollm2_135m_instruct" in found
    assert found["Python"].ok
    assert found["torch"].ok


def test_weights_that_are_not_fetched_yet_are_a_note_with_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "new"))
    found = findings()
    assert found["model smollm2_135m_instruct"].ok is None
    assert "93.8 MiB" in found["model smollm2_135m_instruct"].found
    assert found["cache folder"].found.startswith(str(tmp_path / "new"))
    assert not (tmp_path / "new").exists(), "looking changes nothing"


def test_a_cache_folder_that_is_a_file_is_said_with_the_variable_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "file" / "cache"))
    found = findings()["cache folder"]
    assert found.ok is False
    assert ENVIRONMENT_VARIABLE in found.advice


def test_whatever_is_missing_is_named_with_the_command_that_brings_it(tmp_path: Path) -> None:
    """A Python with all packages of this one but three, and a cache folder that is a file."""
    gone = ("trl", "bitsandbytes", "pip")
    site = Path(pydantic.__file__).parents[1]
    for path in site.iterdir():
        if not path.name.startswith(gone):
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "file").write_text("in the way")
    code = (
        "from harness.doctor import examine\n"
        "for check in examine():\n"
        "    if check.ok is False: print(check.name, '|', check.found, '|', check.advice)\n"
    )
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    where = {"PYTHONPATH": paths, ENVIRONMENT_VARIABLE: str(tmp_path / "file")}
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(
        command, env={**os.environ, **where}, capture_output=True, text=True, check=True
    )
    lines = [line.split(" | ") for line in done.stdout.splitlines()]
    found = {name: advice for name, _, advice in lines}
    assert found["trl"].startswith("pip install")
    assert found["pip"].startswith("python -m ensurepip")
    assert ENVIRONMENT_VARIABLE in found["cache folder"]
    assert "bitsandbytes" in found["quantization nf4"]
    assert "torch" not in found


def test_every_extra_of_the_project_is_named_with_what_it_is_for() -> None:
    """Schemes have lines of their own, with their versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {
        name: {requirement.partition(">")[0] for requirement in requirements}
        for name, requirements in project["optional-dependencies"].items()
    }
    of_schemes = {scheme.extra for scheme in schemes()} - {None}
    told = {extra.name: set(extra.packages) for extra in EXTRAS}
    assert told == {name: extras[name] for name in extras.keys() - of_schemes}
    assert {f"extra {name}" for name in told} <= findings().keys()


def test_an_extra_that_is_not_installed_is_a_note_with_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = doctor._shown
    gone = {"wandb", "galore-torch"}
    monkeypatch.setattr(doctor, "_shown", lambda name: None if name in gone else here(name))
    found = findings()
    assert found["extra wandb"].ok is None
    assert found["extra wandb"].found == "wandb not installed"
    assert found["extra wandb"].advice == (
        'for --track wandb: pip install -c constraints.txt "finetune-harness[wandb]"'
    )
    assert found["extra optimizers"].found == "galore-torch not installed"


def test_an_extra_that_this_python_is_too_old_for_is_a_note_without_a_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "_shown", lambda _: None)
    monkeypatch.setattr(doctor.sys, "version_info", (3, 11, 9))
    advice = findings()["extra every-eval-ever"].advice
    assert "needs Python 3.12" in advice
    assert "pip install" not in advice


def test_looking_loads_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "from harness.doctor import examine\n"
        "list(examine())\n"
        "print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
