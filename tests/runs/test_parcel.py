"""A run carried out elsewhere comes back whole, equal to one carried out here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.errors import InvalidFile, RunError
from harness.records.record import Problem
from harness.records.store import RunStore
from harness.runs.options import RunOptions
from harness.runs.parcel import (
    PlanFiles,
    _as_sent,
    check_versions,
    pack_plan,
    pack_sources,
    run_parcel,
    take_back,
    unpack_sources,
    versions,
)
from harness.runs.supervise import shrunk
from harness.score.reuse import kept_base
from harness.spec.model import FolderSource
from harness.spec.plan import Plan
from tests.runs.forked import supervise
from tests.runs.results import files, results
from tests.runs.small_run import Heard, Small, make_small
from tests.store_records import record_of


def test_a_run_far_away_is_the_run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The far machine has neither the corpus nor the weights, nor this store."""
    small = make_small(tmp_path / "here", steps=3)
    plan, options = small.plan(), RunOptions(timeout_seconds=1800)
    here, back = RunStore(tmp_path / "runs"), RunStore(tmp_path / "back")
    parcel, sources = pack_plan(plan, options, back), pack_sources(plan)
    expected = supervise(plan, here, Heard(), options)
    shutil.rmtree(small.folder / "weights")
    (small.folder / "trees.jsonl").unlink()
    monkeypatch.setenv("FINETUNE_HARNESS_CACHE", str(tmp_path / "far"))
    record = take_back(run_parcel(parcel, sources), plan, back)
    assert record.status == "ok", record.problem
    assert results(record) == results(expected)
    assert files(back, plan) == files(here, plan)
    assert record.plan == plan
    assert str(tmp_path / "far") not in back.folder(plan).record.read_text()
    assert back.find(plan) == record
    assert [path.name for path in kept_base(plan, back.root)] == [
        path.name for path in kept_base(plan, here.root)
    ], "what was found of the untrained model came back"
    _check_base_scores_are_sent(plan.model_copy(update={"seed": 1}), sources, back, tmp_path)


def _check_base_scores_are_sent(
    plan: Plan, sources: PlanFiles, store: RunStore, cache: Path
) -> None:
    """Another machine takes them over and need not score the untrained model again."""
    shutil.rmtree(cache / "far" / "worker")
    parcel = pack_plan(plan, RunOptions(timeout_seconds=1800), store)
    record = take_back(run_parcel(parcel, sources), plan, store)
    assert record.status == "ok", record.problem
    assert [cost.reused for cost in record.phases if cost.name == "score_base"] == [True]


def test_what_was_sent_is_found_by_its_digest(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_HARNESS_CACHE", str(tmp_path))
    plan = small.plan()
    local = unpack_sources(plan, pack_sources(plan))
    assert local.fingerprint == plan.fingerprint
    assert local.run_name == plan.run_name
    assert isinstance(local.model.source, FolderSource)
    for path in (local.corpus.source, local.model.source.path):
        assert tmp_path in Path(path).parents


def test_another_version_is_refused_by_name(small: Small, tmp_path: Path) -> None:
    wanted = versions() | {"torch": "1.0", "left-pad": "2"}
    with pytest.raises(RunError) as caught:
        check_versions(wanted)
    assert "torch" in str(caught.value)
    assert "1.0 there" in str(caught.value)
    assert "left-pad missing here" in str(caught.value)
    parcel = pack_plan(small.plan(), RunOptions(), RunStore(tmp_path))
    with pytest.raises(RunError, match="other versions"):
        run_parcel(type(parcel)(parcel.plan, parcel.options, wanted), PlanFiles())


def test_half_a_folder_leaves_nothing(small: Small, tmp_path: Path) -> None:
    import io
    import tarfile

    store, plan, buffer = RunStore(tmp_path), small.plan(), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("whole/record.json")
        member.size = 5
        archive.addfile(member, io.BytesIO(b'{"pla'))
    with pytest.raises(InvalidFile):
        take_back(buffer.getvalue(), plan, store)
    assert store.find(plan) is None
    assert not list(tmp_path.rglob("*.json"))


def test_a_smaller_plan_that_fitted_comes_back_as_itself(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The far machine knows both runs already, so that nothing is trained here."""
    monkeypatch.setenv("FINETUNE_HARNESS_CACHE", str(tmp_path / "far"))
    plan, options = small.plan("training.micro_batch_size=2"), RunOptions(on_oom="shrink")
    parcel, sources = pack_plan(plan, options, RunStore(tmp_path)), pack_sources(plan)
    local, far = unpack_sources(plan, sources), RunStore(tmp_path / "far" / "worker" / "runs")
    problem = Problem(kind="OutOfMemoryError", message="full", phase="train", step=1)
    too_big = record_of(local, status="oom", problem=problem)
    smaller = shrunk(too_big)
    assert smaller is not None
    far.write(too_big)
    far.write(record_of(smaller))
    back = RunStore(tmp_path / "back")
    record = take_back(run_parcel(parcel, sources), plan, back)
    assert record.status == "ok"
    assert back.find(record.plan) == record
    assert back.find(plan) is None, "that one did not fit"
    assert (found := far.find(local)) is not None
    assert found.status == "oom"
    assert str(tmp_path / "far") not in back.folder(record.plan).record.read_text()


def test_a_smaller_plan_has_the_senders_paths_too(small: Small) -> None:
    plan = small.plan("training.micro_batch_size=2")
    sent, there = (
        plan.model_copy(update={"score": plan.score.model_copy(update={"data_folder": folder})})
        for folder in ("/here", "/far")
    )
    training = there.training.model_copy(update={"micro_batch_size": 1})
    carried_out = there.model_copy(update={"training": training})
    assert carried_out.fingerprint != sent.fingerprint
    assert _as_sent(carried_out, sent).score.data_folder == "/here"
