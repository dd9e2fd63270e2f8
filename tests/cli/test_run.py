"""A batch on a terminal: one run fails, the next goes on, the report has a row for each."""

from __future__ import annotations

import os
import pty
import re
import shlex
import sys
from pathlib import Path

import pytest

from harness.records.store import RunStore, StoredRun
from tests.runs.small_run import Small

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(arguments: list[str]) -> tuple[int, str]:
    """Exit code and all that a terminal was sent."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
        os.execv(sys.executable, [sys.executable, "-m", "harness", *arguments])
    parts = []
    while True:
        try:
            data = os.read(terminal, 1 << 16)
        except OSError:  # how Linux says that the other end is closed
            break
        if not data:
            break
        parts.append(data)
    os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, CODES.sub("", b"".join(parts).decode("utf-8", errors="replace"))


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
def test_a_batch_goes_on_past_a_run_that_fails(small: Small, tmp_path: Path) -> None:
    arguments = ["run", "-v", "lora_bf16", "-v", "base", "-s", str(small.suite)]
    arguments += ["--set", "training.learning_rate=1e30", "--set", "budget.steps=5"]
    arguments += ["--device", "cpu"]
    code, shown = on_terminal([*arguments, "--reports", str(tmp_path)])
    assert code == 1
    runs = list(RunStore(tmp_path / "runs").scan())
    ended = {
        run.record.plan.variant.split("+")[0]: run.record.status
        for run in runs
        if isinstance(run, StoredRun)
    }
    assert ended == {"base": "ok", "lora_bf16": "diverged"}
    report = next(tmp_path.glob("*/report.md")).read_text(encoding="utf-8")
    assert "diverged" in report
    for words in ("load model", "score the base", "loss", "tokens/s", "resident", "GiB"):
        assert words in shown
    assert "diverged in phase train, step 2: the loss at step 2 is" in shown
    assert "Traceback" not in shown
    assert "Warning" not in shown, "chatter of libraries stays in the log"
    (again,) = re.findall(r"To rebuild this report: python -m harness (report .*)", shown)
    assert on_terminal(shlex.split(again))[0] == 0, "what it says to type is a command"
