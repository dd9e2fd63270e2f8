"""Parent: a process that ends when its parent is gone."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

TOLD_OF_A_LOST_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def end_with_parent() -> None:
    """Leave at once when the parent is gone: it holds the other end of standard input.

    What this process has started goes too, if it leads a process group. On Linux one that is
    stopped (SIGSTOP) is woken for it.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):  # SIGKILL would end this process alone, before its group
        libc.prctl(TOLD_OF_A_LOST_PARENT, signal.SIGCONT)

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):  # not through its buffer, whose lock blocks the exit
            pass
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True, name="parent-watch").start()
