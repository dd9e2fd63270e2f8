"""Process: one child process from its start to its end, watched through its events."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from harness.records.events import EventTail
from harness.records.store import RunFolder
from harness.runs.ending import Death, oom_counters, oom_kills

POLL_SECONDS = 0.1
GRACE_SECONDS = 15

Watch = Callable[[dict[str, Any]], None]


def run_process(
    command: Sequence[str], folder: RunFolder, watch: Watch, timeout_seconds: float | None = None
) -> Death:
    """Run ``command``, pass its events to ``watch`` and return how it died.

    What it prints goes to ``folder.log``. Its standard input stays open while this process
    lives. Ctrl-C, SIGTERM, SIGHUP and the time limit are passed on as one SIGINT; a child that
    does not end soon after is killed, and so is whatever it has started.

    Raises:
        OSError: the log cannot be written, or the command not be started.
    """
    interrupted = timed_out = False
    with folder.log.open("wb") as log, _interrupts():
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the child through us, once
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        counters = oom_counters(child.pid)
        kills = oom_kills(counters)
        try:
            timed_out = _follow(child, EventTail(folder.events), watch, timeout_seconds)
        except KeyboardInterrupt:
            interrupted = True
            _stop(child)
        finally:
            _kill(child)
    more = _difference(oom_kills(counters), kills)
    return Death(child.returncode, interrupted, timed_out, more)


def _follow(
    child: subprocess.Popen[bytes], tail: EventTail, watch: Watch, timeout_seconds: float | None
) -> bool:
    """Pass events on until the child ends; True if it was stopped at the time limit."""
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    late = False
    while child.poll() is None:
        _pass_on(tail, watch)
        if deadline is not None and time.monotonic() > deadline:
            late = True
            _stop(child)
        time.sleep(POLL_SECONDS)
    _pass_on(tail, watch)
    return late


def _pass_on(tail: EventTail, watch: Watch) -> None:
    for event in tail.new():
        watch(event)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ask the child to end, wait for its record, then insist."""
    with suppress(KeyboardInterrupt):
        for _ in range(GRACE_SECONDS):  # again and again: a library may swallow one
            child.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                child.wait(1.0)
                break
    _kill(child)


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End the child and its own children, which are in its process group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin is not None:
        child.stdin.close()


def _difference(after: int | None, before: int | None) -> int | None:
    return None if before is None or after is None else after - before


@contextmanager
def _interrupts() -> Iterator[None]:
    """Let SIGTERM and SIGHUP interrupt like Ctrl-C, so that a record is written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), _interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def tell(watch: Watch, text: str) -> None:
    """Say something in words to ``watch``, as a child would."""
    watch({"kind": "note", "time": time.time(), "text": text})
