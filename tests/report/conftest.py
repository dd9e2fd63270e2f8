"""Synthetic stores that several test modules of the report read."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.report.write import write_report
from tests.report import records
from tests.report.records import Made, build_from, write_runs


@pytest.fixture(scope="session")
def seven_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the variants of the committed example, three seeds, and a failure."""
    root = tmp_path_factory.mktemp("seven")
    write_runs(root, [*records.seven(), Made("full_finetune", status="oom")])
    return root


@pytest.fixture(scope="session")
def seven_written(seven_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the written report of ``seven_runs``."""
    folder = tmp_path_factory.mktemp("written")
    write_report(build_from(seven_runs), folder)
    return folder
