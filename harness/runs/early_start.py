"""EarlyStart: the process of a command's first run, begun while its plans are made and checked."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO

from harness.origin import settings_of
from harness.records.store import RunFolder
from harness.runs.process import CHILD_SETTINGS, Child, Start, child_command, in_fresh_process

AT_ONCE_BYTES = 4096  # what a pipe takes without anybody reading, however little it was given


class EarlyStart:
    """The process of this command that waits for the folder of its run, if there is one.

    It loads what every run needs before its first phase, and writes nothing anywhere. Told its
    folder, it is what `child_command` would have started then; not told, it ends with the command.
    """

    def __init__(self) -> None:
        """Begin nothing yet."""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._found: tuple[dict[str, str], str, str] | None = None
        self._given: dict[str, str] = {}

    @property
    def pid(self) -> int | None:
        """Process id of the one that waits, if there is one."""
        return None if self._process is None else self._process.pid

    def begin(self) -> None:
        """Start the process, unless there is one; a system that refuses it is asked again later."""
        with self._lock, suppress(OSError):
            if self._process is not None:
                return
            self._found, self._given = _surroundings(), _environment()
            with tempfile.TemporaryFile() as log:
                self._process = subprocess.Popen(
                    child_command(),
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=self._given,
                )
            atexit.register(self.close)

    def take(self, folders: Sequence[RunFolder]) -> Child | None:
        """Have it carry out the plans in ``folders``; None where it is not there or not fit.

        It is not fit where a setting of the libraries that it has loaded was changed since, or
        where it could not be told at once: it reads nothing until it has loaded them.
        """
        with self._lock:
            process = self._process
            if process is None or process.stdin is None:
                return None
            told = order(folders, self._given, _environment())
            fit = self._found == _surroundings() and len(told) <= AT_ONCE_BYTES
            if process.poll() is None and fit:
                try:
                    process.stdin.write(told)
                    process.stdin.flush()
                except OSError:  # it has ended just now
                    pass
                else:
                    self._process = None
                    return process
            self._end()
            return None

    def close(self) -> None:
        """End the process if it still waits."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            with suppress(OSError):  # what was not read
                process.stdin.close()


def _surroundings() -> tuple[dict[str, str], str, str]:
    """What libraries look at while they are imported, where they are found, and this folder."""
    return settings_of(os.environ), os.environ.get("PYTHONPATH", ""), str(Path.cwd())


def _environment() -> dict[str, str]:
    return {**os.environ, **CHILD_SETTINGS}


def order(
    folders: Sequence[RunFolder], before: Mapping[str, str], after: Mapping[str, str]
) -> bytes:
    """The line that tells a process its folders and how its environment has changed since.

    A variable that was removed is null.
    """
    names = sorted({*before, *after})
    changed = {name: after.get(name) for name in names if before.get(name) != after.get(name)}
    paths = [str(folder.path.absolute()) for folder in folders]
    return json.dumps({"folders": paths, "environment": changed}).encode() + b"\n"


def early_or_afresh(*folders: RunFolder) -> Start:
    """The process that has begun already carries out the plans, or else a fresh one."""

    def start(log: IO[bytes]) -> Child:
        return early_start().take(folders) or in_fresh_process(child_command(*folders))(log)

    return start


@cache
def early_start() -> EarlyStart:
    """The one of this process."""
    return EarlyStart()
