"""A training path added from outside: a package with one class and one entry point."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from harness.errors import UserError
from harness.forecast.memory import predict
from harness.records.store import RunStore
from harness.spec.request import Request
from harness.train.path import load_path, path_names, resolve
from tests.runs.forked import supervise
from tests.runs.small_run import CPU, Heard, make_small

PACKAGE = '''
"""Slow: one row after the other, by the model's own forward pass."""

from harness.train.peaks import TrainingPeaks


class SlowPath:
    name = "slow"
    modules = ("torch",)
    keeps_gradients = True

    def refuses(self, plan):
        return "packed rows" if plan.training.packing else None

    def footprint(self, plan, largest, trainable):
        return TrainingPeaks(saved=1000 * largest.longest, loss=2000, backward=4 * trainable)

    def train(self, job, progress):
        import torch

        from harness.train.collate import assistant_tokens, collate
        from harness.train.ledger import Ledger
        from harness.train.optimizer import make_optimizer

        optimizer = make_optimizer(job.model, job.plan)
        ledger = Ledger(job.step_tokens(padding=False), progress)
        ledger.start_step()
        for step in range(job.steps):
            rows = job.step_rows(step)
            count = sum(assistant_tokens(row) for row in rows)
            total = 0.0
            for row in rows:
                batch = collate([row], job.pad_id)
                tokens = assistant_tokens(row)
                loss = job.model(**batch).loss * tokens / count
                loss.backward()
                total += float(loss.detach())
            optimizer.step()
            optimizer.zero_grad()
            ledger.finish_step(total, optimizer.param_groups[0]["lr"], None)
        return ledger.result(self.name, job.truncated_tokens, plan=job.plan)


SLOW = SlowPath()
'''


def install(folder: Path, points: str) -> None:
    """A package as pip would leave it: its module, and its entry points beside it."""
    (folder / "slow_path.py").write_text(PACKAGE)
    info = folder / "slow_path-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-path\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(dedent(points))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages that this process and its children see."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    inherited = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), inherited])))
    yield folder
    sys.modules.pop("slow_path", None)


def test_a_path_from_another_package_trains_a_run(site: Path, tmp_path: Path) -> None:
    install(site, "[finetune_harness.paths]\nslow = slow_path:SLOW\n")
    small = make_small(tmp_path / "small", steps=4)
    losses = {}
    for speed in ("slow", "plain"):
        settings = (f"training.speed={speed}", "training.max_grad_norm=1e9")
        plan = small.plan(*settings, "adapter.lora_dropout=0.0")
        assert plan.training.speed == speed
        record = supervise(plan, RunStore(tmp_path / "runs"), Heard())
        assert record.problem is None
        assert record.training is not None
        assert record.training.trainer == speed
        losses[speed] = [point.loss for point in record.training.losses]
    assert losses["slow"] == pytest.approx(losses["plain"], abs=1e-4)


def test_its_footprint_is_what_the_forecast_says(site: Path, tmp_path: Path) -> None:
    install(site, "[finetune_harness.paths]\nslow = slow_path:SLOW\n")
    small = make_small(tmp_path / "small")
    parts = predict(small.plan("training.speed=slow")).parts
    assert parts["activations"] == 1000 * 128
    assert path_names() == ["fast", "plain", "recorded", "slow"]


def test_what_it_refuses_becomes_a_substitution(site: Path, tmp_path: Path) -> None:
    install(site, "[finetune_harness.paths]\nslow = slow_path:SLOW\n")
    suite = str(make_small(tmp_path / "small").suite)
    settings = ("training.speed=slow", "training.packing=true")
    (plan,) = resolve(Request(("lora_bf16",), suite, settings=settings), CPU)
    assert plan.training.speed == "plain"
    reasons = [item.reason for item in plan.substitutions if item.key == "training.speed"]
    assert reasons == ["the slow path does not take packed rows"]


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ("slow = slow_path:MISSING", "cannot be imported"),
        ("slow = no_such_module:SLOW", "cannot be imported"),
    ],
)
def test_a_package_that_does_not_fit_is_named(site: Path, point: str, message: str) -> None:
    install(site, f"[finetune_harness.paths]\n{point}\n")
    with pytest.raises(UserError, match=message) as caught:
        load_path("slow")
    assert point in str(caught.value)


def test_the_harness_own_names_cannot_be_taken(site: Path) -> None:
    install(site, "[finetune_harness.paths]\nfast = slow_path:SLOW\n")
    assert type(load_path("fast")).__module__ == "harness.train.stream.path"
