"""Doctor says what is missing and how to get it, without loading what it looks for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.cache import ENVIRONMENT_VARIABLE
from harness.doctor import Check, examine


def findings() -> dict[str, Check]:
    return {check.name: check for check in examine()}


def test_everything_a_run_needs_is_looked_at() -> None:
    found = findings()
    assert {"Python", "torch", "peft", "pip", "memory", "cache folder", "GPU"} <= set(found)
    assert "model smollm2_135m_instruct" in found
    assert found["Python"].ok
    assert found["torch"].ok


def test_what_is_not_well_comes_with_advice() -> None:
    assert all(check.advice for check in examine() if check.ok is False)


def test_weights_that_are_not_fetched_yet_are_a_note_with_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "new"))
    found = findings()
    assert found["model smollm2_135m_instruct"].ok is None
    assert "93 MiB" in found["model smollm2_135m_instruct"].found
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


def test_a_missing_package_is_named_with_the_command_that_brings_it() -> None:
    code = (
        "import sys\n"
        "sys.modules['trl'] = None\n"
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name == 'trl' else find(name)\n"
        "from harness.doctor import examine\n"
        "print([check for check in examine() if check.name == 'trl'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ok=False" in done.stdout
    assert "pip install" in done.stdout


def test_looking_loads_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "from harness.doctor import examine\n"
        "list(examine())\n"
        "print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
