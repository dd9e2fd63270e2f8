"""Process: one child process from its start to its end, heard through its events."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Protocol

from harness.records.events import EventTail, Hear, Note
from harness.records.store import RunFolder
from harness.runs.ending import (
    Ending,
    Means,
    ending_of_process,
    interrupted,
    oom_counters,
    oom_kills,
)
from harness.runs.stop import Stop, interrupts, reason_of

# The log is UTF-8 wherever this runs, and what a library prints cannot end a run.
CHILD_SETTINGS = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONUTF8": "1",  # libraries read their own files in the locale's encoding, and mean UTF-8
    "PYTHONIOENCODING": "utf-8:backslashreplace",
}
POLL_SECONDS = 0.1
GRACE_SECONDS = 15
LOG_TAIL_BYTES = 2_000


class Child(Protocol):
    """A process that is followed: a ``Popen``, or one that was forked elsewhere."""

    pid: int
    returncode: int | None
    stdin: IO[bytes] | None

    def poll(self) -> int | None:
        """Its exit code if it has ended."""

    def wait(self) -> int:
        """Its exit code, once it has ended."""

    def send_signal(self, number: int, /) -> None:
        """Send a signal, unless it has ended."""


Start = Callable[[IO[bytes]], Child]
"""Starts a process that prints to the given log."""


def in_fresh_process(command: Sequence[str]) -> Start:
    """Start ``command``."""

    def start(log: IO[bytes]) -> Child:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the child through us, once
            env={**os.environ, **CHILD_SETTINGS},
        )

    return start


def child_command(*folders: RunFolder, devices: int = 1) -> list[str]:
    """What starts the process that carries out the plan in a folder, or one for each device.

    The folder holds all that they need. Plans in several folders train together in one process.
    """
    module = "harness.runs.child" if devices == 1 else "harness.runs.torchrun"
    return [sys.executable, "-m", module, *(str(folder.path) for folder in folders)]


def run_process(
    start: Start,
    folder: RunFolder,
    hear: Hear,
    timeout_seconds: float | None = None,
    stop: Stop | None = None,
) -> Ending:
    """Run what ``start`` starts, pass its events to ``hear`` and return how it ended.

    What it prints goes to ``folder.log``. Its standard input stays open while this process
    lives. Ctrl-C, SIGTERM, SIGHUP, ``stop`` and the time limit are passed on as SIGINT; a child
    that does not end soon after is killed, and so is whatever it has started.

    Raises:
        OSError: the log cannot be written, or the command not be started.
    """
    stop = stop or Stop()
    means: Means | None = None
    with folder.log.open("wb") as log, interrupts():
        child = start(log)
        counters = oom_counters(child.pid)
        kills = oom_kills(counters)
        try:
            means = _follow(child, EventTail(folder.events), hear, timeout_seconds, stop)
            reason = stop.reason
        except KeyboardInterrupt as error:
            means, reason = "interrupted", reason_of(error)
            _stop(child, stop)
        except BaseException:  # submitit raises errors of its own in a job that is to end
            _stop(child, stop)
            raise
        finally:
            _kill(child)
    more = _difference(oom_kills(counters), kills)
    assert child.returncode is not None  # noqa: S101 - it has been waited for
    if means == "interrupted":
        return interrupted(reason)
    return ending_of_process(child.returncode, means, more, log_tail(folder))


def _follow(
    child: Child,
    tail: EventTail,
    hear: Hear,
    timeout_seconds: float | None,
    stop: Stop,
) -> Means | None:
    """Pass events on until the child ends; says by what means, if it was made to."""
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    means: Means | None = None
    while child.poll() is None:
        _pass_on(tail, hear)
        if stop.asked:
            means = "interrupted"
        elif deadline is not None and time.monotonic() > deadline:
            means = "timed_out"
        if means is not None:
            _stop(child, stop)
        time.sleep(POLL_SECONDS)
    _pass_on(tail, hear)
    return means


def _pass_on(tail: EventTail, hear: Hear) -> None:
    for event in tail.new():
        hear(event)


def _stop(child: Child, stop: Stop) -> None:
    """Ask the child to end, wait for its record, then insist."""
    deadline = time.monotonic() + GRACE_SECONDS
    asked_again = 0.0
    with suppress(KeyboardInterrupt):
        while child.poll() is None and time.monotonic() < deadline and not stop.at_once:
            if time.monotonic() >= asked_again:  # again and again: a library may swallow one
                child.send_signal(signal.SIGINT)
                asked_again = time.monotonic() + 1.0
            time.sleep(POLL_SECONDS)
    _kill(child)


def _kill(child: Child) -> None:
    """End the child and its own children, which are in its process group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin is not None:
        child.stdin.close()


def _difference(after: int | None, before: int | None) -> int | None:
    return None if before is None or after is None else after - before


def log_tail(folder: RunFolder) -> str:
    """The end of what the process printed; empty where nothing can be read."""
    try:
        with folder.log.open("rb") as file:
            file.seek(max(0, folder.log.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def tell(hear: Hear, text: str) -> None:
    """Say something in words to ``hear``, as a child would."""
    hear(Note.now(text=text))
