"""Findings: which records settle a job, and which runs are to be made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.record import Problem
from harness.records.store import RunStore
from harness.studies.findings import Findings, Job, is_settled
from tests.planned import planned
from tests.store_records import record_of

PLAN = planned("lora_bf16")
OTHER = planned("lora_bf16", "budget.steps=5")


def job(plan: object = PLAN) -> Job:
    return Job("verdict", "lora_bf16", 2e-4, 1.0, 0, lambda: plan)  # type: ignore[arg-type, return-value]


def problem(kind: str) -> Problem:
    return Problem(kind=kind, phase="train", step=1, message="m", log_tail="")


@pytest.fixture
def findings(tmp_path: Path) -> Findings:
    return Findings(RunStore(tmp_path / "runs"), tmp_path / "decisions.jsonl")


def test_a_job_without_a_record_is_to_be_run(findings: Findings) -> None:
    assert findings.find(job()) is None


def test_a_record_of_the_job_s_plan_settles_it(findings: Findings) -> None:
    findings.store.write(record_of(PLAN))
    found = findings.find(job())
    assert found is not None
    assert found.record.fingerprint == PLAN.fingerprint
    assert found.folder.path == findings.store.folder(PLAN).path


def test_a_record_of_another_plan_does_not(findings: Findings) -> None:
    findings.store.write(record_of(PLAN))
    assert findings.find(job(OTHER)) is None


def test_a_record_that_cannot_be_read_is_made_again(findings: Findings) -> None:
    findings.store.write(record_of(PLAN))
    findings.store.folder(PLAN).record.write_text("{", encoding="utf-8")
    assert findings.find(job()) is None


def test_a_record_that_lies_in_the_folder_of_another_plan_is_not_taken(findings: Findings) -> None:
    findings.store.write(record_of(OTHER))
    text = findings.store.folder(OTHER).record.read_bytes()
    folder = findings.store.folder(PLAN)
    folder.path.mkdir(parents=True)
    folder.record.write_bytes(text)
    assert findings.find(job()) is None


@pytest.mark.parametrize(
    ("status", "kind", "settled"),
    [
        ("ok", None, True),
        ("failed", "RuntimeError", True),
        ("oom", "cuda_oom", True),
        ("diverged", "DivergedError", True),
        ("interrupted", "interrupt", False),
        ("failed", "killed", False),
        ("failed", "timed_out", False),
        ("failed", "disk_full", False),
        ("failed", "CorpusError", False),
        ("failed", "InvalidFile", False),
    ],
)
def test_what_says_something_about_a_variant_settles_its_job(
    status: str, kind: str | None, settled: bool
) -> None:
    """What was stopped from outside, or by a mistake in a file, is run again."""
    record = record_of(PLAN, status=status, problem=None if kind is None else problem(kind))
    assert is_settled(record) == settled


def test_a_run_that_was_given_up_is_settled_for_everybody(findings: Findings) -> None:
    findings.store.write(record_of(PLAN, status="failed", problem=problem("killed")))
    assert findings.find(job()) is None
    findings.give_up(job())
    findings.give_up(job())
    assert findings.find(job()) is not None
    assert len(findings.log.read_text(encoding="utf-8").splitlines()) == 1, "said once"
    assert Findings(findings.store, findings.log).find(job()) is not None, "to who comes later too"


def test_a_settled_run_is_read_once(findings: Findings) -> None:
    findings.store.write(record_of(PLAN))
    one = job()
    first = findings.find(one)
    findings.store.folder(PLAN).record.unlink()
    assert findings.find(one) is first


def test_what_no_conclusion_needs_is_not_kept(findings: Findings) -> None:
    """A study may have ten thousand records in memory."""
    findings.store.write(record_of(PLAN))
    found = findings.find(job())
    assert found is not None
    assert (found.record.generations, found.record.corpus, found.record.census) == ((), None, None)
    assert found.record.plan is PLAN


def test_jobs_are_equal_by_what_they_ask_not_by_how_their_plan_is_made() -> None:
    one, two = job(), job(OTHER)
    assert one == two
    assert hash(one) == hash(two)
    assert one.key == PLAN.run_name
    assert one.fingerprint != two.fingerprint
