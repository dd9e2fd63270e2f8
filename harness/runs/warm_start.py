"""WarmStart: has runs forked from a process that has loaded the libraries already."""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

from harness.records.store import RunFolder
from harness.runs.process import CHILD_SETTINGS, POLL_SECONDS, Child
from harness.runs.stop import Stop

READY_SECONDS = 180.0
REPLY_SECONDS = 60.0  # a fork takes a hundredth of one, but not where no core is free
ADOPTS = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
WAIT_SECONDS = 0.02


class ColdStart(Exception):  # noqa: N818 - a condition: the run is started in a fresh process
    """No run can be forked, and why."""


class WarmStart:
    """The server of this process. It is started before it is needed, or then, and ends with it.

    Runs go on when it is killed: the processes that it has forked belong to this one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._replies: IO[str] | None = None
        self._is_loaded = self._gives_way = False
        self._found: tuple[dict[str, str], str] | None = None
        self._log: IO[bytes] | None = None
        self._refused: str | None = None

    @property
    def is_ready(self) -> bool:
        """Whether a run can be forked at once."""
        server, connection = self._server, self._connection
        if server is None or connection is None or server.poll() is not None:
            return False
        return self._is_loaded or _has_news(connection)

    def begin(self) -> None:
        """Have the libraries loaded while a run goes on, unless there is a server; do not wait.

        What goes wrong is told where it is needed: by `start`, which begins anew what has not
        been loaded by then.
        """
        with self._lock, suppress(OSError):
            if self._server is None and self._refused is None and hasattr(socket, "send_fds"):
                self._begin(beside_a_run=True)

    def start(self, folder: RunFolder, log: IO[bytes], stop: Stop) -> Child:
        """Fork the process that carries out the plan in ``folder``; it prints to ``log``.

        Raises:
            ColdStart: it cannot be done, or ``stop`` is asked for before it can.
        """
        with self._lock:
            if not hasattr(socket, "send_fds"):
                raise ColdStart("this system does not hand files over")
            try:
                return self._start(folder, log, stop)
            except (OSError, ValueError) as error:
                self._end()
                raise ColdStart(f"the process that had loaded the libraries: {error}") from error
            except ColdStart:
                self._end()
                raise

    def _start(self, folder: RunFolder, log: IO[bytes], stop: Stop) -> Child:
        self._be_ready(stop)
        assert self._connection is not None  # noqa: S101 - it is ready
        read, write = os.pipe()
        try:
            with _adopting():
                request = json.dumps({"folder": str(folder.path.absolute())}).encode()
                socket.send_fds(self._connection, [request], [read, log.fileno()])
                pid = int(self._reply(REPLY_SECONDS)["pid"])
            child = Forked(pid, os.fdopen(write, "wb"))
        except BaseException:
            os.close(write)
            raise
        finally:
            os.close(read)
        if not child.is_own():
            child.abandon()
            self._refuse("this system does not hand processes over")
        return child

    def _be_ready(self, stop: Stop) -> None:
        """A server that has found what this process has now, loaded and fit to fork."""
        if self._server is not None and self._is_of_no_use():
            self._end()
        if self._refused is not None:
            raise ColdStart(self._refused)
        if self._server is None:
            self._begin()
        if not self._is_loaded:
            try:
                self._wait_for_a_word(stop)
                reason = self._reply(REPLY_SECONDS).get("unfit")
            except (ColdStart, OSError) as error:  # it ended, or took too long
                if stop.asked:
                    raise
                self._refuse(str(error))
            if reason is not None:
                self._refuse(str(reason))
            self._is_loaded = True

    def _is_of_no_use(self) -> bool:
        """Whether it found something else than there is now, has ended, or loads too slowly.

        One that ended while it loaded would do so again: what it said last is waiting. One that
        gives way has no turn where others want every core, and nothing can hurry it.
        """
        assert self._server is not None  # noqa: S101 - asked of a server
        has_ended = self._server.poll() is not None
        if self._found != _surroundings():
            return True
        if self._is_loaded:
            return has_ended
        assert self._connection is not None  # noqa: S101 - it has a server
        return self._gives_way and not has_ended and not _has_news(self._connection)

    def _refuse(self, reason: str) -> NoReturn:
        """Give it up for good: it would be found again at every run."""
        self._refused = reason
        raise ColdStart(reason)

    def _begin(self, *, beside_a_run: bool = False) -> None:
        self._found, self._gives_way = _surroundings(), beside_a_run
        own, other = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        command = [sys.executable, "-m", "harness.runs.warm", "--socket", str(other.fileno())]
        if beside_a_run:
            command.append("--beside-a-run")
        with other:
            self._server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[other.fileno()],
                env={**os.environ, **CHILD_SETTINGS},
            )
        self._connection = own
        self._replies = own.makefile(encoding="utf-8")
        atexit.register(self.close)

    def _wait_for_a_word(self, stop: Stop) -> None:
        """Until the server has loaded everything, or has ended.

        Raises:
            ColdStart: ``stop`` is asked for meanwhile.
            OSError: it takes too long.
        """
        assert self._connection is not None  # noqa: S101 - asked after _begin
        deadline = time.monotonic() + READY_SECONDS
        while not select.select([self._connection], [], [], POLL_SECONDS)[0]:
            if stop.asked:
                raise ColdStart("the run is stopped")
            if time.monotonic() > deadline:
                raise TimeoutError(f"it has not loaded them within {READY_SECONDS:g} s")

    def _reply(self, seconds: float) -> dict[str, Any]:
        """The next line from the server.

        Raises:
            ColdStart: it has ended.
            OSError: it says nothing for so long.
        """
        assert self._connection is not None  # noqa: S101 - asked after _begin
        assert self._replies is not None  # noqa: S101
        self._connection.settimeout(seconds)
        line = self._replies.readline()
        if not line:
            raise ColdStart(f"the process that loads the libraries has ended{self._last_words()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def _last_words(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def close(self) -> None:
        """End the server. Runs that it has forked go on."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        for thing in (self._replies, self._connection, self._log):
            if thing is not None:
                with suppress(OSError):
                    thing.close()
        if self._server is not None:
            self._server.kill()
            self._server.wait()
        self._server = self._connection = self._replies = self._log = self._found = None
        self._is_loaded = self._gives_way = False

    @property
    def pid(self) -> int | None:
        """Process id of the server, if there is one."""
        return None if self._server is None else self._server.pid


def _has_news(connection: socket.socket) -> bool:
    """Whether something can be read at once; not where it is closed meanwhile."""
    with suppress(OSError, ValueError):
        return bool(select.select([connection], [], [], 0)[0])
    return False


def _surroundings() -> tuple[dict[str, str], str]:
    """What a process finds that is started now: its environment and its folder."""
    return dict(os.environ), str(Path.cwd())


class Forked:
    """A child of this process that another has forked; it is used like a ``Popen``."""

    def __init__(self, pid: int, stdin: IO[bytes]) -> None:
        """Take the process ``pid``, whose standard input is the other end of ``stdin``."""
        self.pid = pid
        self.stdin: IO[bytes] | None = stdin
        self.returncode: int | None = None
        self._lock = threading.Lock()

    def is_own(self) -> bool:
        """Whether this process can wait for it."""
        try:
            self.poll()
        except ChildProcessError:
            return False
        return True

    def poll(self) -> int | None:
        """Its exit code if it has ended, negative for a signal."""
        with self._lock:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        while (code := self.poll()) is None:
            time.sleep(WAIT_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def abandon(self) -> None:
        """End a process that is nobody's child here."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if self.stdin is not None:
            self.stdin.close()


@contextmanager
def _adopting() -> Iterator[None]:
    """Be the parent of processes whose own parent ends meanwhile.

    Raises:
        ColdStart: this system does not offer it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "prctl") or libc.prctl(ADOPTS, 1, 0, 0, 0) != 0:
        raise ColdStart("this system does not hand processes over")
    try:
        yield
    finally:
        libc.prctl(ADOPTS, 0, 0, 0, 0)


@cache
def warm_start() -> WarmStart:
    """The one of this process."""
    return WarmStart()
