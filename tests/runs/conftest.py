"""One small run's files for all tests of this room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs.halting import sitecustomize
from tests.runs.small_run import Small, make_small


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A model, a corpus and a suite."""
    return make_small(tmp_path_factory.mktemp("small"))


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Children keep tokenised corpora in a folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def halting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Children can be halted at an event, and are waited for however slow the machine is."""
    with pytest.MonkeyPatch.context() as patch:
        asked = tmp_path_factory.mktemp("halting") / "event.json"
        patch.setenv(sitecustomize.VARIABLE, str(asked))
        folder = str(Path(sitecustomize.__file__).parent)
        patch.setenv("PYTHONPATH", folder, prepend=os.pathsep)
        patch.setattr("harness.runs.warm_start.READY_SECONDS", 1800.0)
        patch.setattr("harness.runs.warm_start.REPLY_SECONDS", 1800.0)
        patch.setattr("harness.runs.process.GRACE_SECONDS", 600.0)
        yield


@pytest.fixture(autouse=True)
def nobody_is_halted(halting: None) -> Iterator[None]:
    """A moment that a test asked for and that never came halts no run of the next one."""
    yield
    Path(os.environ[sitecustomize.VARIABLE]).unlink(missing_ok=True)
