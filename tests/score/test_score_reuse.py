"""The base is scored once per fingerprint; what is kept is whole or taken again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.records.events import Silence
from harness.score.reuse import base_key, base_scores
from harness.score.take import take_scores
from harness.spec.suite import ScoreSpec
from harness.spec.variant import Quantization
from tests.score.conftest import make_score_plan

SPEC = ScoreSpec(held_out_tokens=200)


@pytest.fixture
def take(subject: Any) -> Any:
    """Counts how often the base is really scored."""
    calls: list[Path] = []

    def scored(folder: Path) -> Any:
        calls.append(folder)
        return take_scores(subject(SPEC), "before", folder, Silence())

    scored.calls = calls  # type: ignore[attr-defined]
    return scored


def test_a_second_run_reuses_scores_and_items(take: Any, tmp_path: Path) -> None:
    plan, runs = make_score_plan(SPEC), tmp_path / "runs"
    first = base_scores(plan, runs, tmp_path / "a", "before", take)
    second = base_scores(plan, runs, tmp_path / "b", "before", take)
    assert len(take.calls) == 1
    assert first == second
    for score in second.scores:
        assert (tmp_path / "b" / str(score.items)).is_file()


def test_an_untrained_run_has_them_as_its_own(take: Any, tmp_path: Path) -> None:
    found = base_scores(make_score_plan(SPEC), tmp_path, tmp_path / "a", "after", take)
    assert {score.stage for score in found.scores} == {"after"}


def test_another_base_has_another_key() -> None:
    plain, packed = make_score_plan(SPEC), make_score_plan(SPEC, Quantization(type="nf4"))
    assert base_key(plain) != base_key(packed)
    assert base_key(plain) == base_key(plain.model_copy(update={"seed": 7, "variant": "other"}))


def test_cut_files_are_taken_again(take: Any, tmp_path: Path) -> None:
    plan = make_score_plan(SPEC)
    base_scores(plan, tmp_path, tmp_path / "a", "before", take)
    kept = tmp_path / ".base" / base_key(plan)
    (kept / "scores.json").write_text((kept / "scores.json").read_text()[:50])
    base_scores(plan, tmp_path, tmp_path / "b", "before", take)
    next((kept / "items").iterdir()).unlink()
    base_scores(plan, tmp_path, tmp_path / "c", "before", take)
    assert len(take.calls) == 3


def test_a_failed_attempt_leaves_nothing(tmp_path: Path, subject: Any) -> None:
    plan = make_score_plan(SPEC)
    empty = subject(SPEC)
    empty = replace(empty, corpus=replace(empty.corpus, held_out=()))
    with pytest.raises(Exception, match="no held-out"):
        base_scores(
            plan, tmp_path, tmp_path / "a", "before",
            lambda folder: take_scores(empty, "before", folder, Silence()),
        )  # fmt: skip
    assert not (tmp_path / ".base" / base_key(plan)).exists()
