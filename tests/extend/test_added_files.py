"""A variant, a suite and a model are one file each, and a PEFT method needs no code."""

from __future__ import annotations

from pathlib import Path

import pytest

import harness
from tests.runs import forked
from tests.runs.small_run import CPU, Small

VARIANT = """
description = "scaled activations instead of low-rank matrices"
adapter = { type = "IA3", target_modules = "all-linear", feedforward_modules = [] }
"""


def test_added_files_are_planned_trained_and_scored(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The suite and its model lie outside of the harness as well: ``small`` wrote them."""
    monkeypatch.setattr("harness.runs.executor.supervise", forked.supervise)
    variant = tmp_path / "scaled.toml"
    variant.write_text(VARIANT, encoding="utf-8")
    plans = harness.make_plans([str(variant)], suite=str(small.suite), device=CPU)
    (record,) = harness.run(plans, tmp_path / "reports")
    assert record.status == "ok", record.problem
    assert (record.plan.variant, record.plan.suite) == ("scaled", small.suite.stem)
    assert record.census is not None
    assert 0 < record.census.trainable < record.census.total
    assert record.score("held_out", "perplexity") is not None
