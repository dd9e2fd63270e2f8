"""A checkpoint that is not what was written costs time, never a run or a number."""

from __future__ import annotations

import random
import resource
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from harness.records.events import Silence
from harness.train.checkpoint import TrainingState, load_state, save_state, saved_state
from harness.train.job import TrainJob
from harness.train.path import train
from tests.train.tiny import tiny_job, tiny_model, tiny_plan, tiny_rows

ROWS = tiny_rows()


class Notes(Silence):
    """A Progress that remembers, and stops after some steps."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.texts: list[str] = []
        self.steps = 0
        self._left = stop_after

    def note(self, text: str) -> None:
        self.texts.append(text)

    def advance(self, done: int, total: int, **numbers: float) -> None:
        super().advance(done, total, **numbers)
        self.steps += 1
        if self.steps == self._left:
            raise KeyboardInterrupt


def job(folder: Path, speed: str = "plain", steps: int = 5) -> TrainJob:
    plan = tiny_plan(steps=steps, speed=speed)
    return tiny_job(tiny_model(), ROWS, plan, checkpoint=folder, checkpoint_seconds=0.0)


@cache
def _left(speed: str) -> tuple[str, bytes]:
    """Name and content of the checkpoint that a training of five steps leaves in its third."""
    with TemporaryDirectory() as folder:
        with pytest.raises(KeyboardInterrupt):
            train(job(Path(folder), speed), Notes(3))
        (path,) = Path(folder).glob("training-*.pt")
        return path.name, path.read_bytes()


def interrupted(folder: Path, speed: str = "plain") -> Path:
    """The checkpoint of a training that was cut short, as it is found in ``folder``."""
    name, content = _left(speed)
    path = folder / name
    path.write_bytes(content)
    return path


def losses(found: Any) -> list[float]:
    return [point.loss for point in found.losses]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return losses(train(job(tmp_path_factory.mktemp("whole")), Silence()))


def test_what_is_whole_is_gone_on_from(tmp_path: Path, unbroken: list[float]) -> None:
    interrupted(tmp_path)
    notes = Notes()
    assert losses(train(job(tmp_path), notes)) == unbroken
    assert notes.steps < 5
    assert notes.texts == []


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path, seed: int) -> None:
    path = interrupted(tmp_path)
    data = bytearray(path.read_bytes())
    chance = random.Random(seed)
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    notes = Notes()
    assert saved_state(job(tmp_path), notes) is None
    (note,) = notes.texts
    assert note.endswith("training starts anew: its file has changed since it was written")


@pytest.mark.parametrize("cut", [0, 1, 1000])
def test_a_cut_file_is_noticed(tmp_path: Path, cut: int) -> None:
    path = interrupted(tmp_path)
    path.write_bytes(path.read_bytes()[:cut])
    notes = Notes()
    assert saved_state(job(tmp_path), notes) is None
    assert len(notes.texts) == 1


def without_one(state: TrainingState) -> TrainingState:
    weights = dict(state.weights)
    del weights[sorted(weights)[2]]
    return replace(state, weights=weights)


def turned(state: TrainingState) -> TrainingState:
    name = next(name for name, weight in state.weights.items() if len(set(weight.shape)) > 1)
    return replace(state, weights={**state.weights, name: state.weights[name].T.contiguous()})


def another_type(state: TrainingState) -> TrainingState:
    return replace(state, weights={name: w.bfloat16() for name, w in state.weights.items()})


def one_more(state: TrainingState) -> TrainingState:
    return replace(state, weights={**state.weights, "more": torch.zeros(2)})


def moments_of_another_shape(state: TrainingState) -> TrainingState:
    moments = {**state.optimizer["state"][0], "exp_avg": torch.zeros(3)}
    return replace(state, optimizer=state.optimizer | {"state": {0: moments}})


def fewer_moments(state: TrainingState) -> TrainingState:
    (group,) = state.optimizer["param_groups"]
    groups = [group | {"params": group["params"][1:]}]
    return replace(state, optimizer=state.optimizer | {"param_groups": groups})


def no_random_state(state: TrainingState) -> TrainingState:
    return replace(state, random={})


def odd_random_state(state: TrainingState) -> TrainingState:
    return replace(state, random={**state.random, "torch": torch.zeros(3, dtype=torch.uint8)})


def steps_left_out(state: TrainingState) -> TrainingState:
    return replace(state, points=state.points[1:])


CHANGES: list[Callable[[TrainingState], TrainingState]] = [
    without_one,
    turned,
    another_type,
    one_more,
    moments_of_another_shape,
    fewer_moments,
    no_random_state,
    odd_random_state,
    steps_left_out,
]


@pytest.mark.parametrize("speed", ["plain", "fast"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_state_that_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[..., TrainingState], speed: str
) -> None:
    interrupted(tmp_path, speed)
    whole = saved_state(job(tmp_path, speed), Silence())
    assert whole is not None
    save_state(tmp_path, change(whole))
    notes = Notes()
    assert saved_state(job(tmp_path, speed), notes) is None
    (note,) = notes.texts
    assert note.startswith("a checkpoint is not used, and training starts anew: ")


@pytest.mark.parametrize("speed", ["plain", "fast"])
def test_after_a_refusal_training_starts_anew_and_leaves_a_state_of_its_own(
    tmp_path: Path, unbroken: list[float], speed: str
) -> None:
    interrupted(tmp_path, speed)
    state = saved_state(job(tmp_path, speed), Silence())
    assert state is not None
    save_state(tmp_path, turned(state))
    notes = Notes()
    found = losses(train(job(tmp_path, speed), notes))
    assert found == pytest.approx(unbroken, abs=1e-4)
    assert (notes.steps, len(notes.texts)) == (5, 1), "every step again"
    again = Notes()
    assert losses(train(job(tmp_path, speed), again)) == found
    assert (again.texts, again.steps) == ([], 0), "the new state has taken its place"


@pytest.mark.parametrize("speed", ["plain", "fast"])
def test_a_quota_is_no_reason_to_stop(
    tmp_path: Path, unbroken: list[float], speed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EFBIG at the last step once ended a run whose training was done."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    notes = Notes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        found = losses(train(job(tmp_path, speed), notes))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found == pytest.approx(unbroken, abs=1e-4)
    (note,) = notes.texts
    assert note.startswith("no checkpoint from here on: cannot write the checkpoint")
    assert list(tmp_path.iterdir()) == [], "no half of one is left"


def test_a_folder_that_cannot_be_made_is_no_reason_to_stop(
    tmp_path: Path, unbroken: list[float]
) -> None:
    (tmp_path / "file").write_text("in the way")
    notes = Notes()
    assert losses(train(job(tmp_path / "file" / "checkpoint"), notes)) == unbroken
    (note,) = notes.texts
    assert "cannot write the checkpoint" in note


def test_beside_a_broken_file_a_whole_one_is_gone_on_from_and_that_is_said(tmp_path: Path) -> None:
    interrupted(tmp_path)
    (tmp_path / "training-0.pt").write_bytes(b"cut")
    notes = Notes()
    found = load_state(tmp_path, job(tmp_path).plan.fingerprint, tiny_model(), notes)
    assert found is not None
    (note,) = notes.texts
    assert f"training goes on from step {len(found.points)} of another" in note
    assert "anew" not in note
