"""A run that is validated while it trains: its curve, its costs, its kill, its held-out side."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from harness.errors import InvalidFile, UserError
from harness.records.events import Validated
from harness.records.record import RunRecord
from harness.records.store import RunFolder, RunStore
from harness.runs.draft import RunLog
from harness.runs.options import DEFAULT_OPTIONS, RunOptions
from harness.runs.run import Run
from tests.runs.forked import supervise
from tests.runs.results import files, results
from tests.runs.small_run import Heard, Small, make_small, tree

VALIDATED = (
    "corpus.validation_fraction=0.2",
    "validation.every=4",
    "validation.keep=best",
    "validation.patience=2",
    "training.learning_rate=0.05",
)
ORDER_EAGER = RunOptions(checkpoint_seconds=0.0)


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A suite with trees enough for three sides."""
    small = make_small(tmp_path_factory.mktemp("roomy"), steps=16)
    lines = [json.dumps(tree(index)) + "\n" for index in range(40)]
    (small.folder / "trees.jsonl").write_text("".join(lines))
    return small


def curve(record: RunRecord) -> list[dict[str, Any]]:
    assert record.training is not None
    assert record.training.validation is not None
    return [one.model_dump(exclude={"seconds"}) for one in record.training.validation.points]


@pytest.mark.parametrize("speed", [pytest.param("plain", marks=pytest.mark.slow), "fast"])
def test_a_killed_run_ends_with_the_same_curve_and_the_same_weights(
    roomy: Small, tmp_path: Path, speed: str
) -> None:
    dropout = () if speed == "plain" else ("adapter.lora_dropout=0.0",)
    plan = roomy.plan(*VALIDATED, f"training.speed={speed}", *dropout)
    assert plan.training.speed == speed
    whole, cut = RunStore(tmp_path / "whole"), RunStore(tmp_path / "cut")
    heard = Heard()
    record = supervise(plan, whole, heard, ORDER_EAGER)
    assert record.status == "ok", record.problem
    second = {"kind": "validation_start", "step": 4}
    killed = supervise(plan, cut, Heard().kill_at(cut.root, second), ORDER_EAGER)
    assert killed.problem is not None
    assert killed.problem.kind == "killed"
    again = supervise(plan, cut, Heard(), ORDER_EAGER)
    assert again.resumed == 1
    assert results(again) == results(record)
    assert curve(again) == curve(record)
    assert files(cut, plan) == files(whole, plan)
    check_events(heard, record)
    check_costs(record)
    check_costs(again)


def check_events(heard: Heard, record: RunRecord) -> None:
    told = [event.point for event in heard.events if isinstance(event, Validated)]
    assert record.training is not None
    assert record.training.validation is not None
    assert tuple(told) == record.training.validation.points
    assert told[0].step == 0


def check_costs(record: RunRecord) -> None:
    """Training is charged for its steps alone."""
    assert record.training is not None
    assert record.training.validation is not None
    (cost,) = [phase for phase in record.phases if phase.name == "validate"]
    points = record.training.validation.points
    assert cost.seconds >= sum(point.seconds for point in points)
    names = [phase.name for phase in record.phases]
    assert names.index("validate") == names.index("train") + 1


def test_a_trial_scores_the_kept_weights_as_the_curve_did(roomy: Small, tmp_path: Path) -> None:
    """Both are the loss on the validation split, one taken during training, one after it."""
    plan = roomy.plan(*VALIDATED, "score.split=validation")
    record = supervise(plan, RunStore(tmp_path), Heard(), DEFAULT_OPTIONS)
    assert record.training is not None
    assert record.training.validation is not None
    score = record.score("validation", "perplexity")
    assert score is not None
    assert math.log(score.value) == pytest.approx(record.training.validation.lowest.loss, rel=1e-12)
    assert record.training.validation.kept_step == record.training.validation.lowest.step


def prepared(small: Small, folder: Path, *settings: str) -> tuple[Run, Any]:
    from harness.weights.load import load_base

    plan = small.plan(*settings)
    with RunLog(folder / "events.jsonl") as log:
        run = Run(plan, RunFolder(folder), log, DEFAULT_OPTIONS)
        source = small.folder / "weights"
        corpus, renderer, _ = run.prepare(source)
        return run, run.subject(load_base(plan, source), corpus, renderer)


def test_what_validates_holds_no_held_out_conversation(roomy: Small, tmp_path: Path) -> None:
    run, subject = prepared(roomy, tmp_path, *VALIDATED)
    validator = run.validator(subject)
    assert validator is not None
    held_out = {one.id for one in subject.corpus.held_out}
    validated = {one.conversation_id for one in validator.loss.sequences}
    assert held_out
    assert validated == {one.id for one in subject.corpus.validation}
    assert not validated & held_out
    assert not {one.tree_id for one in validator.loss.sequences} & {
        one.tree_id for one in subject.corpus.held_out
    }


def test_without_a_validation_split_it_is_refused(roomy: Small) -> None:
    with pytest.raises(InvalidFile, match=r"every = 4 needs a corpus\.validation_fraction above 0"):
        roomy.plan("validation.every=4")
    with pytest.raises(InvalidFile, match="set every to 1 or more"):
        roomy.plan("corpus.validation_fraction=0.2", "validation.keep=best")


def test_a_split_that_comes_out_empty_is_refused_before_anything_runs(
    roomy: Small, tmp_path: Path
) -> None:
    from harness.cli.checks.data import check_run

    plan = roomy.plan("corpus.validation_fraction=1e-9", "validation.every=4")
    with pytest.raises(UserError, match="no validation conversations"):
        check_run([plan], tmp_path)


def test_what_is_not_validated_is_the_run_it_was(roomy: Small) -> None:
    base = roomy.plan(*VALIDATED, variant="base")
    assert base.validation.every == 0, "an untrained reference has no curve"
    assert roomy.plan().fingerprint == roomy.plan("validation.every=0").fingerprint
