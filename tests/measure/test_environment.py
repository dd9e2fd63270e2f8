"""The manifest of a run."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import harness
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


# What git says of the files below with the author and the dates below.
COMMIT = "5b81969e18880002c3c3f44fc8b7efcc63bc07fb"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of one commit whose content, author and dates, and so its name, are known."""
    for name in ("harness/run.py", "variants/base.toml", "README.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{name}\n")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "A")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@example.org")
        monkeypatch.setenv(f"GIT_{who}_DATE", "2026-01-01T00:00:00Z")
    for line in ("init -q --object-format=sha1", "add .", "commit -q -m one --no-gpg-sign"):
        subprocess.run(["git", "-C", str(tmp_path), *line.split()], check=True)
    monkeypatch.setattr("harness.measure.environment.CHECKOUT", tmp_path)
    return tmp_path


def test_the_commit_is_recorded_and_whether_the_code_differs_from_it(checkout: Path) -> None:
    found = take_environment(CPU)
    assert (found.commit, found.dirty) == (COMMIT, False)
    (checkout / "README.md").write_text("other words")
    assert take_environment(CPU).dirty is False
    (checkout / "variants" / "mine.toml").write_text("new")
    assert take_environment(CPU).dirty is True
    (checkout / "variants" / "mine.toml").unlink()
    (checkout / "harness" / "run.py").write_text("changed")
    assert take_environment(CPU).dirty is True


def test_versions_are_those_that_the_libraries_give_themselves() -> None:
    packages = take_environment(CPU).packages
    assert packages["torch"] == torch.__version__
    assert packages["numpy"] == np.__version__
    assert packages["finetune-harness"] == harness.__version__


def test_threads_and_determinism_are_those_of_this_process() -> None:
    before, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(mode=True)
        found = take_environment(CPU)
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(strict)
    assert (found.threads, found.deterministic) == (1, True)
    assert found.cores >= 1
    assert found.gpu is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ATEN_CPU_CAPABILITY", "default"),
        ("BLIS_NUM_THREADS", "2"),
        ("BNB_CUDA_VERSION", "126"),
        ("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
        ("CUBLASLT_WORKSPACE_SIZE", "1024"),
        ("CUDA_LAUNCH_BLOCKING", "1"),
        ("CUDNN_DETERMINISTIC", "1"),
        ("DISABLE_ADDMM_CUDA_LT", "1"),
        ("DISABLE_KERNEL_MAPPING", "1"),
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
        ("TORCHAO_FORCE_SKIP_LOADING_SO_FILES", "1"),
        ("TORCHDYNAMO_DISABLE", "1"),
        ("TORCHINDUCTOR_MAX_AUTOTUNE", "1"),
        ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1"),
        ("TRITON_F32_DEFAULT", "ieee"),
        ("USE_HUB_KERNELS", "1"),
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


@pytest.mark.parametrize("name", ["ONEDNN_PRIMITIVE_CACHE_CAPACITY", "GOMP_SPINCOUNT"])
def test_how_much_is_kept_and_how_threads_wait_decide_no_value(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "128")
    assert name not in take_environment(CPU).settings


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
