"""Which score decides: named by the suite, read by the report, no part of a run's identity."""

from __future__ import annotations

from pathlib import Path

from harness.records.record import RunRecord
from harness.records.store import RunStore, StoredRun
from harness.report.summary import caveats
from harness.spec.storage import read_json, write_json
from tests.planned import planned
from tests.report.records import Made, build_from, write_run

PUBLISHED = Path(__file__).parents[2] / "reports" / "quick" / "records"


def test_naming_a_primary_score_changes_no_fingerprint() -> None:
    plain, named = planned("qlora_nf4"), planned("qlora_nf4", "score.primary=oasst_choice acc")
    assert named.score.primary == "oasst_choice acc"
    assert (named.fingerprint, named.base_fingerprint) == (
        plain.fingerprint,
        plain.base_fingerprint,
    )


def test_published_runs_keep_their_fingerprints() -> None:
    runs = [run for run in RunStore(PUBLISHED).scan() if isinstance(run, StoredRun)]
    assert runs
    assert all(run.record.plan.fingerprint == run.record.fingerprint for run in runs)


def name_primary(folder: Path, primary: str) -> None:
    """As if the suite's author had named a primary score before this run."""
    record = read_json(folder / "record.json", RunRecord)
    score = record.plan.score.model_copy(update={"primary": primary})
    plan = record.plan.model_copy(update={"score": score})
    write_json(folder / "record.json", record.model_copy(update={"plan": plan}))


def test_the_named_score_ranks(tmp_path: Path) -> None:
    for variant in ("lora_bf16", "base"):
        name_primary(write_run(tmp_path, Made(variant)), "oasst_choice acc")
    main = build_from(tmp_path).evidence.main
    assert main is not None
    assert main.key.title == "oasst_choice acc"


def test_runs_from_before_the_score_was_named_stay_in_their_row(tmp_path: Path) -> None:
    write_run(tmp_path, Made("lora_bf16"))
    name_primary(write_run(tmp_path, Made("lora_bf16", seed=1)), "x acc")
    evidence = build_from(tmp_path).evidence
    assert [row.label for row in evidence.rows] == ["lora_bf16"]
    assert evidence.asked == "x acc"


def test_a_primary_score_that_no_run_has_is_missed(tmp_path: Path) -> None:
    name_primary(write_run(tmp_path, Made("lora_bf16")), "x acc")
    said = list(caveats(build_from(tmp_path).evidence))
    assert any("primary score, x acc, was not taken" in text for text in said)
