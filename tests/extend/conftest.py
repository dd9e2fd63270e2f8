"""A run small enough for the tests of this room, which carry out whole plans."""

from __future__ import annotations

import pytest

from harness.records.store import RunStore, StoredRun
from tests.extend.overlay import Overlay, copy_harness
from tests.extend.scores import BUNDLED, SCORE, write_own
from tests.runs.small_run import Small, make_small


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A model, a corpus and a suite."""
    return make_small(tmp_path_factory.mktemp("small"), steps=3)


@pytest.fixture(scope="session")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Overlay:
    """A copy of the harness with one more score and one more bundled task."""
    made = copy_harness(tmp_path_factory.mktemp("overlay"))
    (made.package / "score" / "reply_length.py").write_text(SCORE)
    line = "SCORES: dict[str, TakeScore] = {\n"
    added = "from harness.score.reply_length import reply_length\n\n\n"
    made.replace("score/take.py", line, f'{added}{line}    "reply_length": reply_length,\n')
    (made.package / "score" / "tasks" / "reply_likelihood.yaml").write_text(BUNDLED)
    return made


@pytest.fixture(scope="session")
def scored(overlay: Overlay, small: Small, tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """A run that is scored by all that was added, and by a task file from elsewhere."""
    own = write_own(tmp_path_factory.mktemp("own"))
    done = overlay.run(
        "run", "--variant", "base", "--suite", str(small.suite), "--task", "reply_likelihood",
        "--task", str(own), "--set", 'score.also=["reply_length"]',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = RunStore(overlay.folder / "reports" / "runs").scan()
    assert isinstance(run, StoredRun)
    return run
