"""Repeated: something that one thread does again and again beside a run, also short of memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psutil

# CPython raises a RuntimeError where there is no memory for the lock with which a thread waits, and
# psutil an error of its own where the system refuses to say what a process uses.
SHORTAGES = (MemoryError, OSError, RuntimeError, psutil.Error)


class Repeated:
    """Calls ``work`` every few seconds in a thread of its own, until it is closed.

    Begin it while there is memory: CPython (3.11) waits for ever for a thread that runs out of
    memory before it could say that it has started.
    """

    def __init__(self, work: Callable[[], object], seconds: float, name: str) -> None:
        """Begin; the first call comes after ``seconds``. ``name`` is the thread's."""
        self._work = work
        self._seconds = seconds
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread is there: an error that is no shortage ends it."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Let the call under way end, and the thread with it."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                if not self._closed.wait(self._seconds):
                    self._work()
            except SHORTAGES:  # the run itself will find that memory or a disk is full
                time.sleep(self._seconds)
