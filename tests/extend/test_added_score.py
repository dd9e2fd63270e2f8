"""To add a score: its own file, and its line in harness/score/take.py (see ``overlay``)."""

from __future__ import annotations

from harness.records.store import StoredRun
from tests.extend.overlay import Overlay
from tests.runs.small_run import Small


def test_a_score_is_one_file_and_one_line(overlay: Overlay, scored: StoredRun) -> None:
    (score,) = [s for s in scored.record.scores if s.task == "reply_length"]
    assert score.n > 1
    assert score.details["asked"] == {"turn": "last"}
    (report,) = (overlay.folder / "reports").rglob("report.md")
    assert "reply_length" in report.read_text()


def test_its_name_is_known(overlay: Overlay, small: Small) -> None:
    options = ("--variant", "base", "--suite", str(small.suite))
    refused = overlay.run("plan", *options, "--set", 'score.also=["reply_lenght"]')
    assert refused.returncode == 2
    assert "did you mean reply_length" in refused.stderr
