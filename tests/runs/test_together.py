"""Plans that train as one in one process: a record of each, as it would have been alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.events import Event
from harness.records.record import RunRecord
from harness.records.store import RunStore
from harness.runs.batch import run_batch
from harness.runs.executor import LocalExecutor
from harness.runs.options import RunOptions
from harness.runs.supervise_together import supervise_together
from harness.spec.plan import Plan
from harness.train.together.group import groups
from tests.planned import planned
from tests.runs.forked import supervise
from tests.runs.results import results
from tests.runs.small_run import Heard, Small, step_done
from tests.train.tiny import ROUNDING

FAST = ("training.speed=fast", "adapter.lora_dropout=0.0")


def plans_of(small: Small) -> list[Plan]:
    other = small.plan(*FAST, "adapter.r=4", "training.learning_rate=4e-3", seed=1)
    return [small.plan(*FAST), other]


@pytest.fixture(scope="session")
def alone(small: Small, tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    store = RunStore(tmp_path_factory.mktemp("alone"))
    return [supervise(plan, store, Heard()) for plan in plans_of(small)]


def check_equal(found: RunRecord, alone: RunRecord) -> None:
    own, other = results(found), results(alone)
    losses = [[point["loss"] for point in one.pop("losses")] for one in (own, other)]
    assert losses[0][0] == pytest.approx(losses[1][0], abs=ROUNDING)
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    scores = [{one["metric"]: one["value"] for one in each.pop("scores")} for each in (own, other)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)
    own.pop("generations"), other.pop("generations")
    assert own == other


def test_each_leaves_the_record_that_it_would_have_left_alone(
    small: Small, alone: list[RunRecord], tmp_path: Path
) -> None:
    plans, store = plans_of(small), RunStore(tmp_path)

    found = {
        result.plan.fingerprint: result.record
        for result in run_batch(plans, LocalExecutor(store), together=8)
    }

    for plan, other in zip(plans, alone, strict=True):
        record = found[plan.fingerprint]
        assert record is not None
        assert record == store.find(plan)
        assert record.together == 2
        check_equal(record, other)
        phases = {cost.name: cost for cost in record.phases}
        assert phases.keys() == {cost.name for cost in other.phases}
        assert store.folder(plan).adapter.is_dir()
    records = [one for one in found.values() if one is not None]
    shares = [{cost.name: cost for cost in one.phases}["train"] for one in records]
    assert len({share.seconds for share in shares}) == 1
    for record in records:  # its share of what all did, and all of its own scoring
        assert record.seconds >= sum(cost.seconds for cost in record.phases) - 0.1
    compiled = {one.training.compile_seconds for one in records if one.training}
    assert len(compiled) == 1


def test_one_that_diverges_ends_alone_and_a_kill_is_gone_on_from(
    small: Small, alone: list[RunRecord], tmp_path: Path
) -> None:
    plans = [plans_of(small)[0], small.plan(*FAST, "training.learning_rate=1e30")]
    store, options = RunStore(tmp_path), RunOptions(checkpoint_seconds=0.0)
    heard = Heard().kill_at(store.root, step_done(1))

    def hear(plan: Plan, event: Event) -> None:
        heard(event)

    cut = supervise_together(plans, store, hear, options)
    assert [record.problem.kind for record in cut if record.problem] == ["killed", "killed"]
    assert [record.together for record in cut] == [2, 2]
    good, bad = supervise_together(plans, store, hear, options)

    assert bad.status == "diverged"
    assert bad.problem is not None
    assert bad.problem.phase == "train"
    assert "the loss at step 2 is nan" in bad.problem.message
    assert (good.status, good.resumed) == ("ok", 1)
    check_equal(good, alone[0])


def test_what_can_train_together_is_found_by_what_may_differ() -> None:
    fast = ("training.speed=fast",)
    one = planned("lora_bf16", *fast)
    rate = planned("lora_bf16", *fast, "training.learning_rate=0.01", seed=3)
    rank = planned("lora_bf16", *fast, "adapter.r=4", "adapter.lora_alpha=4")
    others = [
        planned("lora_bf16", *fast, "training.sequence_length=64"),
        planned("qlora_nf4", *fast),
        planned("lora_bf16", *fast, "training.optimizer=loraplus"),
        planned("lora_bf16", *fast, "adapter.init_lora_weights=pissa"),
        planned("lora_bf16", "training.speed=plain"),
        planned("base"),
    ]

    assert groups([one, others[0], rate, rank], 8) == [[one, rate, rank], [others[0]]]
    assert groups([one, rate, rank], 2) == [[one, rate], [rank]]
    assert groups([one, rate], 1) == [[one], [rate]]
    assert groups([one, *others], 8) == [[one], *([other] for other in others)]
    assert groups([others[4], others[4]], 8) == [[others[4]], [others[4]]]
