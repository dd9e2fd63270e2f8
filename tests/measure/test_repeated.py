"""What a thread does again and again."""

from __future__ import annotations

import threading
import time

import psutil
import pytest

from harness.measure.repeated import Repeated


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError("no space left on device"),
        RuntimeError("can't allocate lock"),
        psutil.AccessDenied(1),
    ],
)
def test_it_goes_on_after_a_shortage(error: Exception) -> None:
    """A pulse that stopped there would make a run look dead that goes on to say what it lacked."""
    calls: list[float] = []
    twice = threading.Event()

    def work() -> None:
        calls.append(time.monotonic())
        if len(calls) == 1:
            raise error
        twice.set()

    repeated = Repeated(work, 0.01, "again")
    assert twice.wait(300)
    repeated.close()
    count = len(calls)
    time.sleep(0.05)
    assert len(calls) == count, "closed"
    assert not any(thread.name == "again" for thread in threading.enumerate())
