"""Parent: a process that ends when its parent is gone."""

from __future__ import annotations

import os
import signal
import sys
import threading


def end_with_parent() -> None:
    """Leave at once when the parent is gone: it holds the other end of standard input.

    What this process has started goes too, if it leads a process group.
    """

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):  # not through its buffer, whose lock blocks the exit
            pass
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True, name="parent-watch").start()
