"""One tiny llama for all tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cache import ENVIRONMENT_VARIABLE
from tests.weights.tiny_llama import write_folder


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a llama with random weights, a tokenizer and a chat template."""
    return write_folder(tmp_path_factory.mktemp("tiny_llama"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(folder))
    return folder
