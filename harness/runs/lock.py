"""Lock: one process at a time works in a run folder, and others can read which one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress

from filelock import FileLock, Timeout

from harness.errors import RunInUse, StorageError
from harness.records.events import Hear
from harness.records.store import RunFolder
from harness.runs.process import tell
from harness.runs.stop import Stop
from harness.spec.storage import write_bytes

WAIT_SECONDS = 0.5


@contextmanager
def held(folder: RunFolder, hear: Hear, stop: Stop, *, wait: bool) -> Iterator[None]:
    """Hold the folder's lock.

    Raises:
        CancelledError: ``stop`` was asked for while another process held it.
        RunInUse: another process holds it, and ``wait`` is false.
        StorageError: the folder cannot be used.
    """
    waited = False
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.lock)
        while True:
            try:
                lock.acquire(timeout=WAIT_SECONDS if waited else 0)
                break
            except Timeout:
                if stop.asked:
                    raise CancelledError from None
                if not wait:
                    raise RunInUse(
                        f"{holder_of(folder)} is already running this plan",
                        where=folder.path,
                        hint="wait for it to finish; the record will then be reused",
                    ) from None
                if not waited:
                    tell(
                        hear, f"waiting for {holder_of(folder)}, which is already running this plan"
                    )
                waited = True
    except OSError as error:
        raise StorageError(
            f"cannot use the run folder: {error.strerror}",
            where=folder.path,
            hint="choose another folder with --reports",
        ) from error
    try:
        text = f"process {os.getpid()} on {socket.gethostname()}\n"
        with suppress(StorageError):
            write_bytes(folder.holder, text.encode())
        yield
    finally:
        folder.holder.unlink(missing_ok=True)
        lock.release()


def is_held(folder: RunFolder) -> bool:
    """Whether a process is working in the folder now."""
    if not folder.lock.is_file():
        return False
    lock = FileLock(folder.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # whoever runs it will say what is wrong with the folder
        return False
    lock.release()
    return False


def holder_of(folder: RunFolder) -> str:
    """The process that is working in the folder, in words."""
    try:
        return folder.holder.read_text(encoding="utf-8").strip()
    except OSError:
        return "another process"
