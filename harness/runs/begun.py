"""Begun: a process started before its folders are known loads its libraries and waits for them."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from harness.records.store import RunFolder
from harness.runs.libraries import load_before_phases


@dataclass(frozen=True)
class Begun:
    """What a process did before it was told its folders.

    ``seconds`` is how long it loaded libraries, and ``error`` what went wrong meanwhile. Both
    belong to the run, which does the same itself in a process that is started with its folders.
    """

    seconds: float = 0.0
    error: BaseException | None = None

    def raise_error(self) -> None:
        """Let what went wrong come up inside the run, which makes a record of it."""
        if self.error is not None:
            raise self.error


AFRESH = Begun()


def told_folders() -> tuple[list[Path], Begun]:
    """Load what every run needs, wait for the order, and go on as if started with it.

    What was printed meanwhile begins the log of the first folder. Ends this process where nobody
    orders anything.
    """
    begun = _load()
    folders = follow(_order())
    _print_to(RunFolder(folders[0]).log)
    return folders, begun


def _load() -> Begun:
    clock = time.monotonic()
    error: BaseException | None = None
    try:
        load_before_phases()
    except (KeyboardInterrupt, Exception) as found:  # noqa: BLE001 - the run raises it again
        error = found
    return Begun(time.monotonic() - clock, error)


def _order() -> bytes:
    """The line that says what to do, as `harness.runs.early_start.order` writes it."""
    line = b""
    while not line.endswith(b"\n"):  # not through a buffer: what follows is for `end_with_parent`
        read = os.read(sys.stdin.fileno(), 1)
        if not read:
            os._exit(0)
        line += read
    return line


def follow(line: bytes) -> list[Path]:
    """Take over the changes of the environment; returns the folders."""
    told = json.loads(line)
    for name, value in told["environment"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    return [Path(path) for path in told["folders"]]


def _print_to(path: Path) -> None:
    """Print to the end of a log, what has been printed so far included."""
    sys.stdout.flush()
    sys.stderr.flush()
    early = os.pread(1, os.fstat(1).st_size, 0)
    with path.open("ab", buffering=0) as log:
        log.write(early)
        for place in (1, 2):
            os.dup2(log.fileno(), place)
