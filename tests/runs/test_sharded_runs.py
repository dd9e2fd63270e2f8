"""Runs whose base two devices share: the losses of one, one record, and an adapter for anyone."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from harness.records.record import RunRecord
from harness.records.store import RunStore
from harness.runs.options import RunOptions
from harness.runs.supervise import supervise
from harness.spec.plan import Plan
from tests.runs import forked
from tests.runs.results import files, results
from tests.runs.small_run import Heard, Small, make_small
from tests.runs.test_devices import at_step, pid_of, starve
from tests.train.tiny import ROUNDING

OPTIONS = RunOptions(checkpoint_seconds=0.05, silence_seconds=600)
IMPATIENT = RunOptions(checkpoint_seconds=0.05, silence_seconds=20)  # where one falls silent
PLAIN = ("training.speed=plain", "adapter.lora_dropout=0.0")
SHARDED = ("training.devices=2", "training.parallel=sharded")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A run of a few steps."""
    return make_small(tmp_path_factory.mktemp("small"), steps=16)


def sharded(small: Small, variant: str = "qlora_nf4_dq") -> Plan:
    """The plan for two devices that share the base."""
    return small.plan(*settings(variant), *SHARDED, variant=variant)


def settings(variant: str) -> tuple[str, ...]:
    """A rate at which a few steps of full fine-tuning are seen."""
    return (*PLAIN[:1], "training.learning_rate=1e-3") if variant.startswith("full") else PLAIN


def kill(plan: Plan, store: RunStore, step: int, rank: int) -> RunRecord:
    """The run until the process of a device is killed."""
    attempt = store.folder(plan).attempt
    heard = at_step(store, step, lambda: os.kill(pid_of(attempt, rank), signal.SIGKILL))
    return supervise(plan, store, heard, OPTIONS)


def test_killed_and_resumed_it_learns_and_scores_what_one_device_does(
    small: Small, tmp_path: Path
) -> None:
    plan, store = sharded(small), RunStore(tmp_path / "sharded")
    killed = kill(plan, store, 7, rank=1)
    assert killed.problem is not None
    assert (killed.problem.kind, killed.problem.phase) == ("killed", "train")
    assert killed.problem.message.startswith("device 1: ")
    both = supervise(plan, store, Heard(), OPTIONS)
    assert both.status == "ok", both.problem
    assert both.resumed == 1

    one, whole = small.plan(*PLAIN, variant="qlora_nf4_dq"), RunStore(tmp_path / "alone")
    alone = forked.supervise(one, whole, Heard(), OPTIONS)
    assert alone.training is not None
    assert both.training is not None
    losses = [[point.loss for point in run.training.losses] for run in (alone, both)]  # type: ignore[union-attr]
    assert losses[1][0] == pytest.approx(losses[0][0], abs=ROUNDING)
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    before = [[s.value for s in run.scores if s.stage == "before"] for run in (alone, both)]
    assert before[0] == before[1]
    assert alone.census is not None
    assert both.census is not None
    assert both.census.weight_bytes == alone.census.weight_bytes
    check_adapter(small, store.folder(plan).adapter, whole.folder(one).adapter)


def check_adapter(small: Small, found: Path, expected: Path) -> None:
    """It is the adapter of one device, and plain PEFT puts it on a plain base."""
    ours = load_file(found / "adapter_model.safetensors")
    theirs = load_file(expected / "adapter_model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert weight.sub(theirs[name]).abs().max() < 1e-4, name
    base = AutoModelForCausalLM.from_pretrained(small.folder / "weights")
    loaded = PeftModel.from_pretrained(base, found).state_dict()
    for name, weight in ours.items():
        key = name.replace(".weight", ".default.weight")
        assert loaded[key].equal(weight)


@pytest.mark.slow
def test_every_weight_trained_killed_and_resumed_it_learns_and_scores_what_one_device_does(
    small: Small, tmp_path: Path
) -> None:
    plan, store = sharded(small, "full_finetune"), RunStore(tmp_path / "sharded")
    killed = kill(plan, store, 7, rank=1)
    assert killed.problem is not None
    assert (killed.problem.kind, killed.problem.phase) == ("killed", "train")
    both = supervise(plan, store, Heard(), OPTIONS)
    assert both.status == "ok", both.problem
    one = small.plan(*settings("full_finetune"), variant="full_finetune")
    alone = supervise(one, RunStore(tmp_path / "alone"), Heard(), OPTIONS)
    assert alone.training is not None
    assert both.training is not None
    losses = [[point.loss for point in run.training.losses] for run in (alone, both)]  # type: ignore[union-attr]
    assert losses[1] == pytest.approx(losses[0], abs=2e-6)
    assert losses[0][-1] < losses[0][0] - 0.5
    scores = [[score.value for score in run.scores] for run in (alone, both)]
    assert scores[1] == pytest.approx(scores[0], rel=1e-5)
    assert both.census == alone.census


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["qlora_nf4_dq", "full_finetune"])
def test_a_device_that_hangs_or_has_no_memory_ends_the_run(
    small: Small, tmp_path: Path, variant: str
) -> None:
    plan, store = sharded(small, variant), RunStore(tmp_path)
    attempt = store.folder(plan).attempt

    def stop() -> None:
        os.kill(pid_of(attempt, 1), signal.SIGSTOP)

    hung = supervise(plan, store, at_step(store, 3, stop), IMPATIENT)
    assert hung.problem is not None
    assert (hung.status, hung.problem.kind) == ("failed", "LostDevice")
    assert "does not answer" in hung.problem.message
    starved = supervise(plan, store, at_step(store, 3, lambda: starve(attempt, 1)), OPTIONS)
    assert starved.problem is not None
    assert (starved.status, starved.problem.kind) == ("oom", "host_oom")
    assert starved.problem.message.startswith("device 1: ")


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["lora_bf16", "qlora_nf4_dq", "full_finetune"])
def test_ten_kills_leave_no_trace(small: Small, tmp_path: Path, variant: str) -> None:
    """Of either device's process, or of torchrun, at any step."""
    plan, undisturbed = sharded(small, variant), RunStore(tmp_path / "undisturbed")
    reference = supervise(plan, undisturbed, Heard(), OPTIONS)
    assert reference.status == "ok", reference.problem
    chance = random.Random(17)
    kills = runs = 0
    while kills < 10:
        runs += 1
        store = RunStore(tmp_path / f"killed {runs}")
        for _ in range(3):
            record = kill(plan, store, chance.randint(1, 6), chance.choice([-1, 0, 1]))
            kills += record.status != "ok"
        record = supervise(plan, store, Heard(), OPTIONS)
        assert record.status == "ok", record.problem
        assert results(record) == results(reference)
        assert files(store, plan) == files(undisturbed, plan)
