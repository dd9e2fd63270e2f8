"""A published study is made again from its records alone, and they hold no text of the data."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.errors import InvalidFile
from harness.spec.plan import Plan
from harness.spec.storage import read_json, write_json
from harness.studies.arms import Arm
from harness.studies.published import PublishedStudy, publish_study, read_study
from harness.studies.steering import Decision, Steering
from tests import rebuild
from tests.planned import GPU
from tests.studies.stub import Bench, World

SECRET = "somebodys_folder"


def fails(plan: Plan) -> str:
    return "diverged" if plan.training.learning_rate > 2e-3 else ""


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A finished study of a GPU that this machine does not have, and no trace of its runs."""
    world = World({"qlora_nf4": 0.05}, rates={"lora_bf16": 4e-3}, fails=fails)
    bench = Bench.of(tmp_path / "there", world, variants=["lora_bf16", "qlora_nf4", "base"])
    bench.comparison = replace(
        bench.comparison, arms=tuple(Arm(elsewhere(arm.plan)) for arm in bench.comparison.arms)
    )
    typed = Decision(time="2026-01-02T03:04:05+00:00", kind="drop", value=f"/home/{SECRET}/x.toml")
    bench.steering = Steering((typed,))
    publish_study(bench.finish(), bench.steering, tmp_path / "reports" / "made_up")
    shutil.rmtree(tmp_path / "there")
    return tmp_path / "reports" / "made_up"


def elsewhere(plan: Plan) -> Plan:
    """The plan on a GPU, its corpus in somebody's own folder."""
    corpus = plan.corpus.model_copy(update={"source": f"/home/{SECRET}/trees.jsonl"})
    return plan.model_copy(update={"device": GPU, "corpus": corpus})


def test_the_page_is_made_again_byte_by_byte(published: Path) -> None:
    assert rebuild.published(published.parent) == [published]
    assert rebuild.differences(published) == []
    page = (published / "report.md").read_text(encoding="utf-8")
    for words in ("qlora_nf4", "failed or diverged", "worse", "drop x.toml"):
        assert words in page, words
    (published / "report.md").write_text(page.replace("worse", "better"), encoding="utf-8")
    assert rebuild.differences(published) == [f"{published}/report.md"]


def test_nothing_is_left_of_a_study_that_has_not_run(published: Path) -> None:
    agenda, _ = read_study(published)
    assert agenda.finished
    assert agenda.comparison.arms[0].plan.device.kind == "cuda"
    assert len(agenda.settled) == len(list(published.rglob("record.json")))


def test_published_records_hold_numbers_and_hashes(published: Path) -> None:
    tables = sorted(published.rglob("*.parquet"))
    assert tables
    for path in tables:
        table = pq.read_table(path)
        assert table.column_names == ["item", "cluster", "numerator", "denominator"]
        assert all(len(name) == 16 for name in table["item"].to_pylist())
        assert "validation" not in path.name, "a trial's items decide nothing"
    for path in published.rglob("*.json"):
        assert SECRET not in path.read_text(encoding="utf-8"), path


def test_records_that_were_changed_are_refused(published: Path) -> None:
    path = min(published.rglob("*.parquet"))
    shutil.copy(max(published.rglob("*.parquet")), path)
    with pytest.raises(InvalidFile, match="its items have changed"):
        read_study(published)


def test_a_record_outside_the_folder_is_refused(published: Path) -> None:
    path = published / "records" / "study.json"
    found = read_json(path, PublishedStudy)
    runs = (found.runs[0].model_copy(update={"folder": "../../elsewhere"}), *found.runs[1:])
    write_json(path, found.model_copy(update={"runs": runs}))
    with pytest.raises(InvalidFile, match="outside the published records"):
        read_study(published)
