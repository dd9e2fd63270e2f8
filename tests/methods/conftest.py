"""One bench for all tests of this room."""

from __future__ import annotations

import pytest

from tests.methods.bench import Bench, make_bench


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Models, a corpus and suites."""
    return make_bench(tmp_path_factory.mktemp("bench"))
