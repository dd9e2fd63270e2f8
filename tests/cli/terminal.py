"""Terminal: the command line in this process, or in one of its own, as a user would type it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from harness.cli import main
from harness.cli.app import err, out

ROOT = str(Path(__file__).parents[2])
WIDTH = 200


@dataclass(frozen=True)
class Shown:
    """What a command printed and how it ended."""

    code: int
    stdout: str
    stderr: str


def harness(*arguments: str, width: int = WIDTH) -> Shown:
    """Run the command line here; what it must not do is checked in processes of their own."""
    printed, complained = io.StringIO(), io.StringIO()
    before, widths = sys.argv, (out.width, err.width)
    sys.argv = ["harness", *arguments]
    out.width = err.width = width
    try:
        with redirect_stdout(printed), redirect_stderr(complained):
            code = main()
    finally:
        sys.argv = before
        out.width, err.width = widths
    return Shown(code, printed.getvalue(), complained.getvalue())


def shown(*arguments: str, width: int = WIDTH) -> str:
    """What a command prints that must succeed."""
    done = harness(*arguments, width=width)
    assert done.code == 0, done.stdout + done.stderr
    return done.stdout


def refused(*arguments: str, code: int = 2) -> str:
    """The message of a command that must fail with ``code``."""
    done = harness(*arguments)
    assert done.code == code, done.stdout + done.stderr
    assert done.stderr.strip(), "silence explains nothing"
    return done.stderr


def in_process(*arguments: str, script: str | None = None, **env: str) -> Shown:
    """Run ``python -m harness ARGUMENTS``, or ``script`` in its place, as a process."""
    start = [sys.executable, "-m", "harness"] if script is None else [sys.executable, "-c", script]
    done = subprocess.run(
        [*start, *arguments],
        env={**os.environ, "PYTHONPATH": ROOT, "COLUMNS": str(WIDTH), **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return Shown(done.returncode, done.stdout, done.stderr)
