"""To add a score: its own file, and its line in harness/score/take.py."""

from __future__ import annotations

from pathlib import Path

from harness.records.store import RunStore, StoredRun
from tests.extend.overlay import copy_harness
from tests.runs.small_run import make_small

SCORE = '''
"""Reply length: how long people's held-out replies are; it needs no model."""

import numpy as np

from harness.score.items import Items, Metric
from harness.score.subject import Scores, Taking

LENGTH = Metric("reply_length", "characters", "characters", "higher")


def reply_length(taking: Taking) -> Scores:
    held_out = taking.subject.corpus.held_out
    names = [conversation.id for conversation in held_out]
    trees = [conversation.tree_id for conversation in held_out]
    sizes = np.array([float(len(c.messages[-1].text)) for c in held_out])
    items = Items(names, trees, sizes, np.ones(len(sizes)))
    return Scores((taking.place.write(LENGTH, items, asked={"turn": "last"}),))
'''


def test_a_score_is_one_file_and_one_line(tmp_path: Path) -> None:
    overlay = copy_harness(tmp_path)
    (overlay.package / "score" / "reply_length.py").write_text(SCORE)
    line = "SCORES: dict[str, TakeScore] = {\n"
    added = "from harness.score.reply_length import reply_length\n\n\n"
    overlay.replace("score/take.py", line, f'{added}{line}    "reply_length": reply_length,\n')
    small = make_small(tmp_path, steps=1)
    options = ("--variant", "base", "--suite", str(small.suite))
    refused = overlay.run("plan", *options, "--set", 'score.also=["reply_lenght"]')
    assert refused.returncode == 2
    assert "did you mean reply_length" in refused.stderr
    done = overlay.run("run", *options, "--set", 'score.also=["reply_length"]')
    assert done.returncode == 0, done.stderr
    (run,) = RunStore(tmp_path / "reports" / "runs").scan()
    assert isinstance(run, StoredRun)
    (score,) = [s for s in run.record.scores if s.task == "reply_length"]
    assert score.n > 1
    assert score.details["asked"] == {"turn": "last"}
    (report,) = (tmp_path / "reports").rglob("report.md")
    assert "reply_length" in report.read_text()
