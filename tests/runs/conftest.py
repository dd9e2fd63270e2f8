"""One small run's files for all tests of this room."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.runs.small_run import Small, make_small


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A model, a corpus and a suite."""
    return make_small(tmp_path_factory.mktemp("small"))


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Children keep tokenised corpora in a folder of the tests' own."""
    name = "FINETUNE_HARNESS_CACHE"
    before = os.environ.get(name)
    os.environ[name] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ[name]
    else:
        os.environ[name] = before
