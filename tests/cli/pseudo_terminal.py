"""PseudoTerminal: a process on a terminal of its own, read and answered as by a person."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time

from tests.cli.terminal import ROOT

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PATIENCE_SECONDS = 600.0  # only so that a hung test ends


class PseudoTerminal:
    """Runs Python with ``arguments``; all that it writes goes to one terminal."""

    def __init__(self, *arguments: str) -> None:
        """Start the process."""
        self._own, other = os.openpty()
        size = {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": ROOT, **size},
        )
        os.close(other)
        self._until = time.monotonic() + PATIENCE_SECONDS
        self._sent = b""

    @property
    def said(self) -> str:
        """All that it was sent so far, without colours and movements of the cursor."""
        return CODES.sub("", self._sent.decode("utf-8", errors="replace"))

    def wait_for(self, words: str) -> None:
        """Read until it shows ``words``, however often it has to be drawn until then."""
        while words not in self.said:
            assert self._read(), f"it ended without {words!r}: {self.said}"

    def press_enter(self) -> None:
        """Let a process go on that waits for a line."""
        os.write(self._own, b"\n")

    def end(self) -> int:
        """Read to the end; the exit code."""
        while self._read():
            pass
        return self._process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        os.close(self._own)

    def _read(self) -> bool:
        """Wait for more; False once the process has closed its end."""
        left = self._until - time.monotonic()
        assert select.select([self._own], [], [], max(left, 0.0))[0], f"it hangs: {self.said}"
        try:
            data = os.read(self._own, 1 << 16)
        except OSError:  # how Linux says that the other end is closed
            return False
        self._sent += data
        return bool(data)
