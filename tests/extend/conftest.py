"""A run small enough for the tests of this room, which carry out whole plans."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs.small_run import Small, make_small


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A model, a corpus and a suite."""
    return make_small(tmp_path_factory.mktemp("small"), steps=3)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children keep tokenised corpora in a folder of the test's own."""
    monkeypatch.setenv("FINETUNE_HARNESS_CACHE", str(tmp_path / "cache"))
