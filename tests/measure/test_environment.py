"""The manifest of a run."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from harness.measure.environment import take_environment
from harness.origin import settings
from harness.spec.device import Device

CPU = Device(kind="cpu", name="Plain CPU", memory_bytes=24 << 30, bfloat16=False, threads=2)
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _own_settings() -> Iterator[None]:
    """Settings are read once in a process; here every test has its own."""
    settings.cache_clear()
    yield
    settings.cache_clear()


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ATEN_CPU_CAPABILITY", "default"),
        ("BLIS_NUM_THREADS", "2"),
        ("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
        ("CUBLASLT_WORKSPACE_SIZE", "1024"),
        ("CUDA_LAUNCH_BLOCKING", "1"),
        ("CUDNN_DETERMINISTIC", "1"),
        ("DNNL_MAX_CPU_ISA", "AVX2"),
        ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2_Usable"),
        ("GOMP_CPU_AFFINITY", "0-3"),
        ("KMP_AFFINITY", "granularity=fine,compact,1,0"),
        ("MKL_CBWR", "COMPATIBLE"),
        ("MKL_NUM_THREADS", "2"),
        ("NVIDIA_TF32_OVERRIDE", "0"),
        ("OMP_NUM_THREADS", "2"),
        ("OMP_SCHEDULE", "dynamic"),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16"),
        ("ONEDNN_MAX_CPU_ISA", "AVX2"),
        ("OPENBLAS_CORETYPE", "Haswell"),
        ("PYTHONHASHSEED", "0"),
        ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1"),
        ("TRITON_F32_DEFAULT", "ieee"),
    ],
)
def test_settings_that_change_arithmetic_are_kept(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert take_environment(CPU).settings[name] == value


def test_a_setting_that_could_be_a_path_is_kept_as_a_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("TORCH_EXTENSIONS", "/home/someone/extensions")
    monkeypatch.setenv("TORCH_HOME", "/home/someone/torch")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = take_environment(CPU).settings
    assert found["TORCH_EXTENSIONS"].startswith("sha256:")
    assert not {"TORCH_HOME", "CUDA_VISIBLE_DEVICES"} & found.keys()


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
