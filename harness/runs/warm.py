"""Warm: a process that has loaded the libraries and forks the processes of runs from itself.

``python -m harness.runs.warm --check`` prints what each library costs to load, and which one
opens a device, which a fork cannot take along.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.runs.forkable import asked_of_a_fork, devices_asked_of_the_driver, unfit

# What the phases of a run import, in this order; see harness.runs.run.
LIBRARIES = (
    "numpy",
    "torch",
    "transformers.models.auto.tokenization_auto",
    "harness.corpus.tokenised",
    "bitsandbytes",
    "harness.weights.load",
    "peft",
    "harness.score.take",
    "harness.score.reuse",
    "harness.weights.adapter",
    "trl",
    "datasets",
    "harness.train.sft.trainer",
    "harness.train.loop",
    "lm_eval",
    "harness.score.engine",
    "harness.runs.child",
)
REQUEST_BYTES = 1 << 16
GIVE_WAY = 5  # how much nicer than others, of 19: beside one thread a third of a core
GONE_SECONDS = 0.001


def load() -> str | None:
    """Load everything that runs need. Returns why no run can be forked from here, or None."""
    parent = os.getppid()
    capabilities = asked_of_a_fork()
    _set_up()
    with devices_asked_of_the_driver(capabilities):
        for name in LIBRARIES:
            if os.getppid() != parent:
                return "nobody waits for it any more"
            with suppress(ImportError):  # a run that needs it says so
                import_module(name)
    return None


def load_patiently() -> str | None:
    """As `load`, but let every other process go first that wants a core.

    A thread loads, and ends: its priority ends with it. Runs are forked from this one, and would
    keep a lowered priority for good, since only an administrator can raise one.
    """
    with ThreadPoolExecutor(1, initializer=_give_way) as thread:
        found, place = thread.submit(load), thread.submit(_own_place).result()
    while place.exists():  # Python lets go of a thread a moment before the system does
        time.sleep(GONE_SECONDS)
    return found.result()


def _give_way() -> None:
    """Lower the priority of this thread, and that of this session where Linux divides by them."""
    os.nice(GIVE_WAY)  # on Linux, where runs are forked, that of the calling thread alone
    with suppress(OSError):  # a run that is forked from here gets a session of its own
        Path("/proc/self/autogroup").write_text(str(GIVE_WAY), encoding="ascii")


def _own_place() -> Path:
    return Path(f"/proc/self/task/{threading.get_native_id()}")


def _set_up() -> None:
    """What a run's own process does before it loads anything, so that it finds the same."""
    from harness.runs.libraries import load_torch

    load_torch()


def serve(connection: socket.socket, *, beside_a_run: bool = False) -> None:
    """Load everything, then fork a process for every request until the other end is closed."""
    reason = (load_patiently() if beside_a_run else load()) or unfit()
    with suppress(BrokenPipeError):  # the other end may be gone
        _tell(connection, {"unfit": reason})
    if reason is not None:
        return
    gc.collect()
    gc.freeze()  # a child's collections need not copy what it never changes
    while True:
        data, fds, _, _ = socket.recv_fds(connection, REQUEST_BYTES, 2)
        if not data:
            return
        pid = _fork(connection, Path(json.loads(data)["folder"]), fds)
        for fd in fds:
            os.close(fd)
        _tell(connection, {"pid": pid})


def _tell(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall((json.dumps(message) + "\n").encode())


def _fork(connection: socket.socket, folder: Path, fds: list[int]) -> int:
    """Fork a run's process that is no child of this one.

    Its parent, forked in between, ends at once, so that the process that ordered the run adopts
    it: it waits for it and measures it as for any child of its own.
    """
    read, write = os.pipe()
    between = os.fork()
    if between == 0:
        pid = os.fork()
        if pid == 0:
            os.close(read)
            os.close(write)
            connection.close()
            _become_child(folder, *fds)
        os.write(write, str(pid).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(between, 0)
    with os.fdopen(read) as file:
        return int(file.read())


def _become_child(folder: Path, stdin: int, log: int) -> None:
    """Go on as the process that carries out the plan in ``folder``; does not return."""
    code = 1
    try:
        os.setsid()
        for fd, place in ((stdin, 0), (log, 1), (log, 2)):
            os.dup2(fd, place)
        os.close(stdin)
        os.close(log)
        from harness.runs.child import main

        code = main([str(folder)], warm=True)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        failed = sys.exc_info()
        if failed[0] is not None and failed[1] is not None:
            sys.excepthook(failed[0], failed[1], failed[2])
        os._exit(code)


def check() -> int:
    """Load library after library and print what each does to a fork. Returns an exit code."""
    report = _Check()
    with report.step("nothing but Python"):
        pass
    with report.step("the driver, asked by a fork"):
        capabilities = asked_of_a_fork()
    with report.step("torch and numpy"):
        _set_up()
    with devices_asked_of_the_driver(capabilities):
        for name in LIBRARIES:
            with report.step(name), suppress(ImportError):
                import_module(name)
    last = unfit()
    print("runs can be forked: " + ("yes" if last is None else f"no, {last}"))  # noqa: T201
    return 0 if last is None else 1


class _Check:
    """Prints how long each step takes and what is new after it that a fork would lack."""

    def __init__(self) -> None:
        self._said: str | None = None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step, and look."""
        started = time.perf_counter()
        yield
        seconds, reason = time.perf_counter() - started, unfit()
        news = f"  <- {reason}" if reason != self._said and reason else ""
        print(f"{seconds:6.2f} s  {name}{news}")  # noqa: T201
        self._said = reason


def main(arguments: list[str]) -> int:
    """``python -m harness.runs.warm --socket FD``, or ``--check``."""
    parser = argparse.ArgumentParser(prog="harness.runs.warm")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--socket", type=int)
    what.add_argument("--check", action="store_true")
    parser.add_argument("--beside-a-run", action="store_true")
    given = parser.parse_args(arguments)
    if given.check:
        return check()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=given.socket) as connection:
        serve(connection, beside_a_run=given.beside_a_run)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
