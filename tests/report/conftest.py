"""Synthetic stores that several test modules of the report read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import records
from records import Made, build_from, write_runs

from harness.report.build import Report

Build = Callable[..., Report]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Write runs into a fresh store and build their report."""

    def make(runs: Sequence[Made], **wishes: object) -> Report:
        write_runs(tmp_path / "runs", runs)
        return build_from(tmp_path / "runs", **wishes)

    return make


@pytest.fixture(scope="session")
def seven_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the variants of the committed example, three seeds, and a failure."""
    root = tmp_path_factory.mktemp("seven")
    write_runs(root, [*records.seven(), Made("full_finetune", status="oom")])
    return root
