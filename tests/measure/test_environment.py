"""The manifest of a run."""

from __future__ import annotations

import getpass
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from harness.measure.environment import take_environment
from harness.spec.device import Device

CPU = Device(kind="cpu", name="Plain CPU", memory_bytes=24 << 30, bfloat16=False, threads=2)
ROOT = Path(__file__).parents[2]


def git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_versions_commit_and_machine() -> None:
    environment = take_environment(CPU)
    assert environment.packages["torch"] == version("torch")
    assert environment.packages["bitsandbytes"] == version("bitsandbytes")
    if (ROOT / ".git").exists():
        assert environment.commit == git("rev-parse", "HEAD")
        assert environment.dirty == bool(git("status", "--porcelain", "--", "harness", "variants"))
    assert environment.cores >= 1
    assert environment.threads is not None
    assert environment.gpu is None
    assert environment.deterministic is False


def test_settings_that_matter_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert take_environment(CPU).settings["OMP_NUM_THREADS"] == "2"


def test_no_secret_user_name_or_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("WANDB_API_KEY", "wandb_secret")
    monkeypatch.setenv("HF_HOME", "/home/someone/models")
    text = take_environment(CPU).model_dump_json()
    assert "secret" not in text
    assert "/home" not in text
    assert str(ROOT) not in text
    assert str(Path.home()) not in text
    assert f'"{getpass.getuser()}"' not in text


def test_outside_a_checkout_there_is_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.measure.environment.CHECKOUT", tmp_path)
    environment = take_environment(CPU)
    assert (environment.commit, environment.dirty) == (None, None)


def test_another_repository_around_an_installed_copy_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    inside = tmp_path / "site-packages"
    inside.mkdir()
    monkeypatch.setattr("harness.measure.environment.CHECKOUT", inside)
    assert take_environment(CPU).commit is None
