"""--jobs, --gpus, --executor, --address and --partition: what they make, and what they refuse."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.cli.placing import Placing, said_alone
from harness.errors import UserError
from harness.records.store import RunStore
from harness.runs import executor
from harness.runs.options import RunOptions
from harness.spec.device import VISIBLE
from tests.planned import planned


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What executors are made with."""
    found: list[tuple[object, ...]] = []

    def make(name: str, store: RunStore, options: RunOptions, *where: object) -> None:
        del store, options
        found.append((name, *where))

    monkeypatch.setattr(executor, "make_executor", make)
    return found


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with four GPUs of one kind; those that are hidden are not seen."""

    def visible() -> list[str]:
        return ["H100"] * len(os.environ.get(VISIBLE, "0,1,2,3").split(","))

    monkeypatch.setattr("harness.spec.device.visible_gpus", visible)
    monkeypatch.delenv(VISIBLE, raising=False)


def make(placing: Placing, tmp_path: Path) -> None:
    placing.make(RunStore(tmp_path), RunOptions())


def test_one_run_at_a_time_unless_more_are_asked_for(
    made: list[tuple[object, ...]], tmp_path: Path
) -> None:
    make(Placing(), tmp_path)
    make(Placing(jobs=3), tmp_path)
    make(Placing("ray", address="auto"), tmp_path)
    make(Placing("slurm", partition="gpu"), tmp_path)
    assert made == [("local", 1, []), ("local", 3, []), ("ray", "auto"), ("slurm", "gpu")]


@pytest.mark.usefixtures("four_gpus")
def test_every_gpu_gets_a_run_and_more_if_asked_for(
    made: list[tuple[object, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, "0,1,2,3")
    make(Placing(gpus="all"), tmp_path)
    make(Placing(gpus="2, 3", jobs=6), tmp_path)
    assert made == [("local", 4, ["0", "1", "2", "3"]), ("local", 6, ["2", "3"])]
    assert os.environ[VISIBLE] == "2,3", "plans are made for a device that runs will get"


@pytest.mark.parametrize(
    ("placing", "words"),
    [
        (Placing(partition="gpu"), "--partition with --executor local"),
        (Placing("ray", jobs=2), "--jobs with --executor ray"),
        (Placing("slurm", gpus="all"), "--gpus with --executor slurm"),
        (Placing(gpus="0,0"), "--gpus '0,0'"),
    ],
)
def test_what_does_not_go_together_is_refused(placing: Placing, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        make(placing, tmp_path)


def test_gpus_of_several_kinds_and_gpus_that_are_not_there_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, "0,1")
    for found, words in (([], "no NVIDIA GPU"), (["A100", "H100"], "not alike")):
        monkeypatch.setattr("harness.spec.device.visible_gpus", lambda found=found: found)
        with pytest.raises(UserError, match=words):
            make(Placing(gpus="all"), tmp_path)
    monkeypatch.setattr("harness.spec.device.visible_gpus", lambda: ["H100"])
    with pytest.raises(UserError, match="2 GPUs are named, and 1 of them"):
        make(Placing(gpus="0,7"), tmp_path)


def test_runs_that_cannot_train_as_one_are_said_to_train_alone() -> None:
    slow = [planned("lora_bf16", seed=seed) for seed in range(2)]
    fast = [planned("lora_bf16", "training.speed=fast", seed=seed) for seed in range(2)]
    assert "suite.training.speed=fast" in said_alone(slow, 2)
    assert said_alone(fast, 2) == ""
    assert said_alone(slow, 1) == ""
    for few in ([], slow[:1]):
        assert said_alone(few, 2) == "", "it takes two to train as one"
