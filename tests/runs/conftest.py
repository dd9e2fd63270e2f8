"""One small run's files for all tests of this room."""

from __future__ import annotations

import pytest

from tests.runs.small_run import Small, make_small


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A model, a corpus and a suite."""
    return make_small(tmp_path_factory.mktemp("small"))
